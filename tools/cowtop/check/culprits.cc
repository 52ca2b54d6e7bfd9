#include <algorithm>
#include <map>
#include <span>
#include <utility>

#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/check/culprits.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

using cow::ForkCopies;
using cow::kPageSize;
using cow::ProcessCopies;

// Returns the 3 largest of each kind, without those below a 20th of the largest.  Those of a kind
// are parts of `used`: estimates share what exact counts leave of it.
std::vector<Finding> largest(std::vector<Finding> culprits, std::uint64_t used) {
  constexpr std::size_t kMost = 3;
  std::map<std::pair<FindingKind, bool>, std::uint64_t> sums;  // exact ones, and estimates
  for (const Finding& each : culprits) sums[{each.kind, each.is_estimate}] += each.bytes;
  for (Finding& each : culprits) {
    each.subject = printable(each.subject);
    const std::uint64_t exact = each.is_estimate ? sums[{each.kind, false}] : 0;
    const std::uint64_t left = used - std::min(used, exact);
    const std::uint64_t sum = sums[{each.kind, each.is_estimate}];
    if (sum > left)
      each.bytes = static_cast<std::uint64_t>(static_cast<double>(each.bytes) *
                                              static_cast<double>(left) / static_cast<double>(sum));
  }
  std::ranges::stable_sort(culprits, [](const Finding& a, const Finding& b) {
    return a.kind != b.kind ? a.kind < b.kind : a.bytes > b.bytes;
  });
  struct Seen {
    std::size_t count = 0;
    std::uint64_t most = 0;
  };
  std::map<FindingKind, Seen> seen;
  std::erase_if(culprits, [&](const Finding& each) {
    Seen& of_kind = seen[each.kind];
    of_kind.most = std::max(of_kind.most, each.bytes);
    return each.bytes == 0 || ++of_kind.count > kMost ||
           !is_part(each.bytes, of_kind.most, kShownOfAll);
  });
  return culprits;
}

void add_shares(std::vector<Finding>& list, FindingKind kind, const std::vector<Share>& shares) {
  for (const Share& each : shares)
    list.push_back({.kind = kind,
                    .subject = each.name,
                    .bytes = each.bytes,
                    .is_estimate = each.remark.empty(),
                    .file = each.file,
                    .line = each.line});
}

// Adds the objects of the processes, and the sites and mappings of `shares`.
std::vector<Finding> largest_with(std::vector<Finding> list,
                                  std::span<const ProcessCopies> processes, const Shares& shares,
                                  std::uint64_t used, const std::string& limited) {
  std::map<std::string, std::uint64_t> pages_by_name;
  for (const ProcessCopies& process : processes) {
    if (!process.objects) continue;
    for (const cow::ObjectCopies& object : *process.objects)
      if (limited.empty() || object.name == limited)
        pages_by_name[object.name.empty() ? object.type : object.name] += object.copied_pages;
  }
  for (const auto& [name, pages] : pages_by_name)
    list.push_back({.kind = FindingKind::object, .subject = name, .bytes = pages * kPageSize});
  add_shares(list, FindingKind::site, shares.sites);
  add_shares(list, FindingKind::mapping, shares.mappings);
  return largest(std::move(list), used);
}

}  // namespace

std::vector<Finding> culprits_of(const cow::Measurement& measurement, const ProcessCopies& process,
                                 const ForkCopies& copies, std::uint64_t used,
                                 const std::string& limited) {
  return largest_with({}, {&process, 1}, shares_of_process(measurement, process, copies, 0), used,
                      limited);
}

std::vector<Finding> culprits_of_all(const cow::Measurement& measurement,
                                     std::vector<Finding> parts, std::uint64_t used,
                                     const std::string& limited) {
  return largest_with(std::move(parts), measurement.processes, summarize(measurement), used,
                      limited);
}

std::vector<Finding> culprits_of_new(const cow::Measurement& measurement, std::uint64_t new_bytes,
                                     std::uint64_t unfaulted_bytes) {
  ForkCopies copies;
  copies.unfaulted_bytes = unfaulted_bytes;
  const Shares shares = shares_of_process(measurement, {}, copies, new_bytes);
  std::vector<Finding> list;
  add_shares(list, FindingKind::site, shares.new_sites);
  list.push_back({.kind = FindingKind::site,
                  .subject = std::string(cow::kNoWriteFault),
                  .bytes = unfaulted_bytes,
                  .is_estimate = true});
  return largest(std::move(list), new_bytes);
}

}  // namespace cowshed::cowtop
