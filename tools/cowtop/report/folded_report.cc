#include <algorithm>
#include <fmt/format.h>

#include <cowshed/tools/cowtop/report/folded_report.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {

void for_each_stack(
    const cow::Measurement& measurement,
    const std::function<void(std::size_t, const std::string&, std::uint64_t)>& callback) {
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    const std::uint64_t copied = process.all_copied_pages().value_or(0);
    if (copied == 0) continue;
    std::string command = printable(process.comm);
    std::ranges::replace(command, ';', ':');
    if (!process.sampled || process.sampled->stacks.empty()) {
      callback(i, command + ";[not sampled]", copied);
      continue;
    }
    for (const cow::FoldedStack& stack : process.sampled->stacks) {
      if (stack.estimated_copies == 0) continue;
      callback(i, command + ";" + printable(stack.folded), stack.estimated_copies);
    }
  }
}

std::map<std::string, std::uint64_t> folded_copies(const cow::Measurement& measurement) {
  std::map<std::string, std::uint64_t> copies;
  for_each_stack(measurement, [&](std::size_t /*process*/, const std::string& stack,
                                  std::uint64_t pages) { copies[stack] += pages; });
  return copies;
}

std::string folded_report(const cow::Measurement& measurement) {
  std::string text;
  for (const auto& [stack, pages] : folded_copies(measurement))
    text += fmt::format("{} {}\n", stack, pages);
  if (measurement.new_memory)
    for (const cow::FoldedStack& stack : measurement.new_memory->stacks)
      text += fmt::format("[new memory];{} {}\n", printable(stack.folded), stack.estimated_copies);
  return text;
}

}  // namespace cowshed::cowtop
