#include <algorithm>

#include <cowshed/cow/fork_copies.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/cure/in_service.h>

namespace cowshed::cowtop {

void InService::look(std::uint64_t ns, const cow::Measurement& now) {
  if (now.memory && (peaks_.empty() || peaks_.back().second != now.memory->peak_pss_bytes))
    peaks_.emplace_back(ns, now.memory->peak_pss_bytes);
  for (const cow::ProcessCopies& each : now.processes) {
    if (!each.alive || !cow::goes_on(each) || !each.all_copied_pages()) continue;
    Figures& pages = copied_pages_[each.id()];
    if (pages.empty() || pages.back().second != *each.all_copied_pages())
      pages.emplace_back(ns, *each.all_copied_pages());
    pages.back().first = ns;
  }
}

std::optional<std::uint64_t> InService::peak_bytes(const cow::Measurement& at_end) const {
  const std::vector<cow::ForkCopies> copies = cow::fork_copies(at_end);
  std::uint64_t last_start = 0;
  for (const cow::ProcessCopies& each : at_end.processes)
    if (cow::goes_on(each)) last_start = std::max(last_start, each.start_ns);
  std::uint64_t end = UINT64_MAX;
  for (std::size_t i = 0; i < copies.size(); ++i) {
    const cow::ProcessCopies& process = at_end.processes[i];
    const auto seen = copied_pages_.find(process.id());
    if (process.processes > 1 || copies[i].exit_bytes() < kLeastBytes ||
        seen == copied_pages_.end())
      continue;
    // exit_pages is estimated, and must not take a worker's work for its end.
    const std::uint64_t at_exit = copies[i].exit_pages - copies[i].exit_pages / 10;
    const std::uint64_t before = *process.all_copied_pages() - at_exit;
    std::uint64_t began = 0;
    for (const auto& [ns, pages] : seen->second)
      if (pages <= before) began = ns;
    if (began > last_start) end = std::min(end, began);
  }
  std::uint64_t peak = 0;
  for (const auto& [ns, bytes] : peaks_)
    if (ns < end) peak = bytes;  // memory is read after the counts
  if (end == UINT64_MAX || peak == 0 || !at_end.memory) return std::nullopt;
  const std::uint64_t whole = at_end.memory->peak_pss_bytes;
  if (whole - peak < kLeastBytes || !is_part(whole - peak, whole, kShownOfAll)) return std::nullopt;
  return peak;
}

}  // namespace cowshed::cowtop
