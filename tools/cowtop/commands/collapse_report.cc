#include <array>
#include <chrono>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/commands/collapse_report.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

using Seconds = std::chrono::duration<double>;
using Milliseconds = std::chrono::duration<double, std::milli>;

// In the order of SmallPages.
constexpr std::array<const char*, kSmallPagesReasons> kReasons = {
    "with too many holes",
    "shared with another process",
    "at the edges of mappings",
    "swapped out",
    "locked (mlock)",
    "without huge pages or not inherited (madvise)",
    "in use by the kernel",
    "for want of memory",
    "not reached",
};

// fork() copies page tables at 15 to 17 ms of CPU a MiB, and passes over huge pages.
double fork_ms(std::uint64_t page_tables, std::uint64_t huge_bytes) {
  constexpr double kMsPerMiBOfTables = 16;
  constexpr double kMsPerMiBOfHugePages = 0.0006;
  return (kMsPerMiBOfTables * static_cast<double>(page_tables) +
          kMsPerMiBOfHugePages * static_cast<double>(huge_bytes)) /
         kMiB;
}

double fork_ms_before(const Collapsed& collapsed) {
  return fork_ms(collapsed.page_tables_before, collapsed.huge_bytes_before);
}

double fork_ms_after(const Collapsed& collapsed) {
  return fork_ms(collapsed.page_tables_after, collapsed.huge_bytes_after);
}

std::string left_text(const Collapsed& collapsed) {
  std::string text;
  for (std::size_t i = 0; i < kReasons.size(); ++i) {
    if (collapsed.left[i] < kLeastBytes) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", mib(collapsed.left[i]), kReasons[i]);
  }
  return text.empty() ? "" : "  left   " + text + "\n";
}

}  // namespace

std::string collapse_text(const CollapsedProcess& process) {
  const Collapsed& collapsed = process.collapsed;
  return breakable(fmt::format(
      "{} ({}): {} in 2 MiB pages, {} before, of {}; {} added\n"
      "  fork   some {:.1f} ms, {:.1f} before, estimated from page tables: {}, {} before\n"
      "{}"
      "  took   {:.1f} s, {:.1f} of CPU; at most {:.1f} ms at a time\n",
      process.name, process.pid, mib(collapsed.huge_bytes_after), mib(collapsed.huge_bytes_before),
      mib(collapsed.private_bytes), mib(collapsed.added_bytes), fork_ms_after(collapsed),
      fork_ms_before(collapsed), mib(collapsed.page_tables_after),
      mib(collapsed.page_tables_before), left_text(collapsed), Seconds(collapsed.time).count(),
      Seconds(collapsed.cpu).count(), Milliseconds(collapsed.longest_call).count()));
}

std::string collapse_json(const std::vector<CollapsedProcess>& processes,
                          const std::vector<Error>& refused) {
  nlohmann::ordered_json report = {{"schema", "cowshed.collapse/1"},
                                   {"processes", nlohmann::ordered_json::array()},
                                   {"refused", nlohmann::ordered_json::array()}};
  for (const CollapsedProcess& each : processes) {
    const Collapsed& collapsed = each.collapsed;
    nlohmann::ordered_json left;
    for (std::size_t i = 0; i < kReasons.size(); ++i) left[kSmallPagesNames[i]] = collapsed.left[i];
    report["processes"].push_back(
        {{"pid", each.pid},
         {"name", printable(each.name)},
         {"private_bytes", collapsed.private_bytes},
         {"huge_bytes_before", collapsed.huge_bytes_before},
         {"huge_bytes_after", collapsed.huge_bytes_after},
         {"added_bytes", collapsed.added_bytes},
         {"page_table_bytes_before", collapsed.page_tables_before},
         {"page_table_bytes_after", collapsed.page_tables_after},
         {"estimated_fork_ms_before", fork_ms_before(collapsed)},
         {"estimated_fork_ms_after", fork_ms_after(collapsed)},
         {"left_bytes", std::move(left)},
         {"seconds", Seconds(collapsed.time).count()},
         {"cpu_seconds", Seconds(collapsed.cpu).count()},
         {"longest_call_ms", Milliseconds(collapsed.longest_call).count()}});
  }
  for (const Error& each : refused) report["refused"].push_back(printable(each.message));
  return report.dump() + "\n";
}

}  // namespace cowshed::cowtop
