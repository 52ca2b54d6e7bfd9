#include <algorithm>

#include <cowshed/base/clock.h>
#include <cowshed/tools/cowtop/live/model/memory_reader.h>

namespace cowshed::cowtop::live {

std::map<ProcessId, MemoryUse> MemoryReader::read(const std::vector<ProcessId>& running,
                                                  const std::vector<ProcessId>& on_screen,
                                                  Wanted wanted) {
  std::map<ProcessId, MemoryUse> result;
  for (const ProcessId& process : running) {
    MemoryUse& use = result[process];
    if (const auto known = known_.find(process); known != known_.end()) use = known->second;
    if (!wanted.rss) continue;
    const auto stat = proc_.stat(process.pid);
    if (stat) use.rss_bytes = stat->resident_pages * cow::kPageSize;
  }
  const std::uint64_t begin = monotonic_ns();
  if (wanted.pss && pace_.is_due(begin)) {
    std::vector<ProcessId> oldest = on_screen;
    std::ranges::stable_sort(oldest, {},
                             [&](const ProcessId& each) { return result[each].pss_ns; });
    constexpr std::uint64_t kMostAtOnceNs = 20'000'000;
    std::uint64_t end = begin;
    for (const ProcessId& process : oldest) {
      if (end > begin + kMostAtOnceNs) break;
      MemoryUse& use = result[process];
      if (const auto pss = proc_.pss(process.pid)) use.pss_bytes = pss->bytes;
      use.pss_ns = end = monotonic_ns();
    }
    pace_.ran(end, end - begin);
  }
  known_ = result;
  return result;
}

}  // namespace cowshed::cowtop::live
