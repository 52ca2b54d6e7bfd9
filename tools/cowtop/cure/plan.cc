#include <algorithm>
#include <fmt/format.h>

#include <cowshed/tools/cowtop/cure/plan.h>
#include <cowshed/tools/cowtop/cure/treatments.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {

std::string plan_text(const std::vector<std::string>& command, const std::vector<Cure>& cures,
                      unsigned runs) {
  const unsigned most = std::max(runs, kMostToCompare);
  const auto times = [](unsigned count) {
    return count == 1 ? "once" : fmt::format("{} times", count);
  };
  std::string text = fmt::format(
      "cure runs this command 1 to {} times, each time with all that it does: a mail that it\n"
      "sends is sent each time.\n"
      "  {}\n"
      "  first     once, as it is: how long that takes, and which remedies fit\n"
      "  then      {} with each of these that fits{}:\n",
      most * (1 + cures.size()), shell_line({}, command), times(runs),
      runs == 1 ? ", and again as it is if one helps"
                : fmt::format(", and {} as it is", times(runs - 1)));
  for (const Cure& each : cures) {
    const std::string sets = shell_line(each, {});
    text += "            " + (sets == each.name ? sets : each.name + ": " + sets) + "\n";
  }
  if (runs < most)
    text += fmt::format("  at last   again, up to {} of each, if outputs differ\n", times(most));
  text +=
      "It ends after the first run if that fails, or, without --keep-going, if that leaves a\n"
      "process or a changed file of this folder.\n";
  return printable_lines(text);
}

}  // namespace cowshed::cowtop
