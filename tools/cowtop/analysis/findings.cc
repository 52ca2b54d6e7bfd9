#include <algorithm>
#include <array>
#include <utility>

#include <cowshed/cow/cause_names.h>
#include <cowshed/tools/cowtop/analysis/findings.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/remarks.h>

namespace cowshed::cowtop {
namespace {

Finding verdict(const cow::Measurement& measurement, const Summary& summary) {
  Finding finding = {
      .kind = FindingKind::copied, .bytes = summary.copied_bytes, .of_bytes = summary.shared_bytes};
  const ProcessGroup* const sharers = summary.is_little ? summary.most_shared() : nullptr;
  if (!summary.groups.empty())
    finding.subject = (sharers != nullptr ? *sharers : summary.groups.front()).comm;
  if (summary.groups.empty() || (!summary.is_all_known && summary.copied_bytes == 0))
    finding.kind = FindingKind::not_known;
  else if (summary.is_little)
    finding.kind = summary.sharers == 0 ? FindingKind::not_shared : FindingKind::little;
  finding.is_estimate = !measurement.exact;
  return finding;
}

void add_crashes(const Summary& summary, std::vector<Finding>& findings) {
  for (const bool of_root : {true, false})
    for (std::size_t i = 0; i < summary.groups.size(); ++i)
      if (const ProcessGroup& group = summary.groups[i];
          group.crash && (group.role == cow::Role::root) == of_root)
        findings.push_back({.kind = FindingKind::crash,
                            .subject = group.comm,
                            .bytes = group.processes,
                            .index = i});
}

void add_parents(const Summary& summary, std::vector<Finding>& findings) {
  if (summary.groups.empty() || !summary.groups.front().is_parent) return;
  for (std::size_t i = 0; i < summary.parents.size(); ++i)
    findings.push_back({.kind = FindingKind::parent,
                        .bytes = summary.parents[i].copied_bytes,
                        .of_bytes = summary.parents[i].shared_bytes.value_or(0),
                        .index = i});
}

// `weights`: of the first, the second and so on; the last also of all others.
void add_shares(FindingKind kind, const std::vector<Share>& shares, std::uint64_t all,
                const std::array<int, 3>& weights, std::vector<Finding>& findings) {
  std::size_t rank = 0;
  for (const Share& share : shares) {
    const bool is_exact = kind == FindingKind::mapping && !share.remark.empty();
    if (share.of_all < kShownOfAll && !is_exact) continue;
    findings.push_back({.kind = kind,
                        .subject = share.name,
                        .bytes = share.bytes,
                        .of_bytes = share.of_all > 0
                                        ? static_cast<std::uint64_t>(
                                              static_cast<double>(share.bytes) / share.of_all)
                                        : all,
                        .is_estimate = !is_exact,
                        .remark = share.remark,
                        .file = share.file,
                        .line = share.line,
                        .weight = weights.at(std::min<std::size_t>(rank++, 2))});
  }
}

// To the finding that it is against, or to one of its own.
void add_remedy(Advice advice, std::vector<Finding>& findings) {
  const std::string_view cause = advice.remedy->cause;
  const auto found = std::ranges::find_if(findings, [&](const Finding& each) {
    if (each.name == "exit_copies") return cause == cow::kProgramExit;
    if (each.kind == FindingKind::cause) return cause == each.subject;
    cow::NewMemoryCause of_new;
    return each.kind == FindingKind::new_cause && cow::from_name(each.subject, of_new) &&
           cause == of_new.kind;
  });
  if (found != findings.end()) {
    found->remedies.push_back(std::move(advice));
  } else {
    findings.push_back({.kind = FindingKind::cost,
                        .subject = std::string(cause),
                        .bytes = advice.saves_bytes,
                        .is_estimate = true});
    findings.back().remedies.push_back(std::move(advice));
  }
}

// Where memory was short, a higher limit only if no other remedy saves enough.
std::vector<Advice> advice_on(const cow::Measurement& measurement, const Summary& summary) {
  std::vector<Advice> all = advise(measurement, summary);
  std::uint64_t limit = summary.most_peak_bytes;
  for (const ProcessGroup& group : summary.groups)
    if (group.out_of_memory) limit = group.out_of_memory->limit_bytes.value_or(limit);
  const bool is_enough = std::ranges::any_of(
      all, [&](const Advice& each) { return each.is_known && is_much(each.saves_bytes, limit); });
  const auto is_limit = [](const Advice& each) { return each.remedy->cause == kOutOfMemory; };
  if (is_enough && std::erase_if(all, is_limit) > 0)
    for (std::size_t i = 0; i < all.size(); ++i) all[i].rank = i;
  return all;
}

}  // namespace

std::string_view kind_of(const Finding& finding) {
  constexpr std::array kNames = {
      "copied", "little", "not_shared", "not_known", "crash", "remark",    "parent",   "process",
      "object", "site",   "mapping",    "cause",     "type",  "new_cause", "new_site", "cost"};
  static_assert(kNames.size() == static_cast<std::size_t>(FindingKind::cost) + 1);
  return finding.name.empty() ? kNames.at(static_cast<std::size_t>(finding.kind)) : finding.name;
}

std::vector<Finding> findings_of(const cow::Measurement& measurement, const Summary& summary) {
  std::vector<Finding> findings = {verdict(measurement, summary)};
  add_crashes(summary, findings);
  for (Remark& each : remarks_on(measurement, summary))
    findings.push_back({.kind = FindingKind::remark,
                        .name = each.kind,
                        .bytes = each.bytes,
                        .of_bytes = each.of_bytes,
                        .remark = std::move(each.text),
                        .weight = each.weight});
  add_parents(summary, findings);
  constexpr std::array kRows = {9, 7, 6};
  constexpr std::array kTypes = {9, 2, 1};
  constexpr std::array kSites = {9, 5, 5};  // before what is not counted
  add_shares(FindingKind::mapping, summary.mappings, 0, kRows, findings);
  add_shares(FindingKind::cause, summary.causes, summary.copied_bytes, kRows, findings);
  add_shares(FindingKind::type, summary.types, 0, kTypes, findings);
  add_shares(FindingKind::site, summary.sites, 0, kSites, findings);
  add_shares(FindingKind::new_cause, summary.new_causes, summary.new_bytes, kRows, findings);
  add_shares(FindingKind::new_site, summary.new_sites, summary.new_bytes, kSites, findings);
  for (Advice& each : advice_on(measurement, summary)) add_remedy(std::move(each), findings);
  return findings;
}

std::vector<Advice> remedies_of(const std::vector<Finding>& findings) {
  std::vector<Advice> all;
  for (const Finding& finding : findings)
    all.insert(all.end(), finding.remedies.begin(), finding.remedies.end());
  std::ranges::sort(all, {}, &Advice::rank);
  return all;
}

std::vector<Finding> of_kind(const std::vector<Finding>& findings, FindingKind kind) {
  std::vector<Finding> result;
  std::ranges::copy_if(findings, std::back_inserter(result),
                       [&](const Finding& each) { return each.kind == kind; });
  return result;
}

}  // namespace cowshed::cowtop
