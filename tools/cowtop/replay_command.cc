#include <CLI/CLI.hpp>
#include <utility>

#include <cowshed/tools/cowtop/command_line.h>
#include <cowshed/tools/cowtop/live/replay_view.h>
#include <cowshed/tools/cowtop/replay_command.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kReplayDescription =
    "Shows what cowtop record has kept in the live view, as it was at each moment.";

constexpr const char* kReplayUsage = "cowtop replay FILE";

constexpr const char* kReplayFooter =
    R"(Space pauses, Left and Right go one interval back and forward, Home and End to the first and the
last, + and - change the speed, h tells all keys, q quits.

Examples:
  cowtop record -o run.cowtop -- ./server --workers 4
  cowtop replay run.cowtop

Exit status: 0; 125 if there is nothing to be read, no terminal to show it on, or bad usage.)";

}  // namespace

int replay_command(std::vector<std::string> words) {
  CommandLine line({"cowtop replay", kReplayDescription, kReplayUsage, kReplayFooter});
  std::string path;
  line.app().add_option("FILE", path, "The recording")->required();
  if (const auto status = line.parse(std::move(words))) return *status;
  return live::replay(path);
}

}  // namespace cowshed::cowtop
