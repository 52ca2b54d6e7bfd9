#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/command_line.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/commands/commands.h>
#include <cowshed/tools/cowtop/measure/measure_options.h>
#include <cowshed/tools/cowtop/recording/recorder.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kRecordDescription =
    "Measures a command, or a running process tree, and keeps all of it in one compressed file,\n"
    "from which cowtop report makes every report.";

constexpr const char* kRecordUsage =
    "cowtop record -o FILE [OPTIONS] -- COMMAND [ARGS...]\n"
    "       cowtop record -o FILE [OPTIONS] -p PID | --cgroup PATH | --comm REGEX";

constexpr const char* kRecordFooter = R"(Examples:
  cowtop record -o run.cowtop -- ./server --workers 4
  cowtop record -o run.cowtop -p $(pidof -s redis-server)
                                     until Ctrl-C
  cowtop report run.cowtop           what it says, also while it grows
  zstdcat run.cowtop | jq            what it holds

Every second or two what has changed is appended: whatever happens to
cowtop, the file can be read up to then.

Exit status: as cowtop's: the command's own; 125 an error of cowtop's own or bad usage;
where both the command and the recording failed, the command's.)";

std::string where_it_is(OutputFile::Kind kind, const std::string& path) {
  switch (kind) {
    case OutputFile::Kind::stream: return {};
    case OutputFile::Kind::device:
      return fmt::format(
          "; {} keeps nothing of it: with the name of a file, cowtop report shows it", path);
    case OutputFile::Kind::file: break;
  }
  return fmt::format("; cowtop report {} shows it", path);
}

}  // namespace

Expected<int> record_command(std::vector<std::string> words) {
  CommandLine line({"cowtop record", kRecordDescription, kRecordUsage, kRecordFooter});
  std::string path;
  line.add_file("-o,--output", path, "The file; what it held is lost")->required();
  const MeasureArguments arguments(line.app(), MeasureArguments::Otherwise::is_wrong);
  TRY(const auto status, line.parse_with_command(std::move(words)));
  if (status) return *status;
  TRY(const auto options, line.checked(arguments.options(line.command())));

  TRY(auto file, OutputFile::open(path));
  const bool has_command = !options.command.empty();
  for (const auto& [descriptor, name] :
       {std::pair(STDOUT_FILENO, "standard output"), std::pair(STDERR_FILENO, "standard error")}) {
    if ((descriptor == STDOUT_FILENO && !has_command) || !file.is_also(descriptor)) continue;
    return wrong(fmt::format("{}: {} goes to the same file, amid the recording; name another file",
                             path, name));
  }
  const OutputFile::Kind kind = file.kind();
  TRY(auto recorder, Recorder::start(std::move(file), options));
  const Measured measured = measure(options, &recorder);
  if (!measured.measurement) return measured.exit_status;
  const auto ended = recorder.end(*measured.measurement, measured.exit_status);
  if (!ended) return own_error_after(ended.error(), measured.exit_status);
  complain(fmt::format("recorded {} in {:.1f} s{}",
                       plural(measured.measurement->process_count(), "process"),
                       measured.measurement->duration_s, where_it_is(kind, path)));
  return measured.exit_status;
}

}  // namespace cowshed::cowtop
