#include <algorithm>
#include <map>

#include <cowshed/tools/cowtop/estimate.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kMostFrozen = 3;

bool may_be_worker(const cow::ProcessCopies& process) {
  return process.role == cow::Role::child && !process.shares_memory && process.execs == 0 &&
         process.copied_bytes() && process.shared_at_fork_bytes.value_or(0) > 0;
}

std::vector<Estimate::Frozen> hottest(const std::map<std::string, std::uint64_t>& pages) {
  std::vector<Estimate::Frozen> result;
  for (const auto& [name, count] : pages) {
    if (count > 0) result.push_back({name, count * cow::kPageSize});
  }
  std::stable_sort(result.begin(), result.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  if (result.size() > kMostFrozen) result.resize(kMostFrozen);
  return result;
}

}  // namespace

std::uint64_t Estimate::bytes_with_workers(std::uint64_t times) const {
  return shared_bytes + times * copied_bytes;
}

std::uint64_t Estimate::bytes_by_spawn() const { return (workers + 1) * shared_bytes; }

std::optional<Estimate> estimate(const cow::Measurement& measurement) {
  Estimate result;
  std::map<std::string, std::uint64_t> objects;
  std::map<std::string, std::uint64_t> mappings;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!may_be_worker(process)) continue;
    result.shared_bytes =
        std::max(result.shared_bytes, *process.shared_at_fork_bytes / process.processes);
  }
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!may_be_worker(process) ||
        *process.shared_at_fork_bytes / process.processes < result.shared_bytes / 2) {
      continue;
    }
    result.workers += process.processes;
    result.copied_bytes += *process.copied_bytes();
    if (process.objects) {
      for (const cow::ObjectCopies& object : *process.objects) {
        objects["object '" + object.name + "'"] += object.copied_pages;
      }
    }
    if (process.sampled) {
      for (const cow::MappingCopies& mapping : process.sampled->mappings) {
        mappings["mapping '" + mapping.name + "'"] += mapping.estimated_copies;
      }
    }
  }
  if (result.workers == 0) return std::nullopt;
  result.frozen = hottest(objects);
  if (result.frozen.empty()) result.frozen = hottest(mappings);
  return result;
}

}  // namespace cowshed::cowtop
