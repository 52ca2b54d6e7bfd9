#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/command_line.h>
#include <cowshed/tools/cowtop/commands/top_options.h>
#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/glossary.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kCowtopDescription =
    "Counts the memory that forked processes copy although they meant to share it.\n"
    "Runs a command and reports when it ends, or shows live what runs already.";

constexpr const char* kCowtopUsage =
    "cowtop [OPTIONS] -- COMMAND [ARGS...]\n"
    "       cowtop [OPTIONS] [-p PID[,PID...] | --cgroup PATH | --comm REGEX]\n"
    "       cowtop record -o FILE [OPTIONS] -- COMMAND [ARGS...]\n"
    "       cowtop report FILE\n"
    "       cowtop diff BEFORE AFTER\n"
    "       cowtop cure -- COMMAND [ARGS...]\n"
    "       cowtop check LIMITS [OPTIONS] -- COMMAND [ARGS...]\n"
    "       cowtop serve --listen HOST:PORT\n"
    "       cowtop collapse -p PID\n"
    "       cowtop doctor\n"
    "       cowtop help WORD";

constexpr const char* kExamples = R"(Examples:
  sudo cowtop -- ./server            what each worker copied, when it has ended
  sudo cowtop -u $USER -- CMD        the command runs as yourself, not as root
  sudo cowtop -p $(pidof -s redis-server)
                                     what happens from now on, until Ctrl-C
  cowtop help WORD                   what a word of the report means

  cowtop --live -- ./server          the report's figures while it runs
  cowtop --json -o run.json -- CMD   all of it, for a machine to read
  sudo cowtop --cgroup /system.slice/apache2.service
  sudo cowtop --comm '^php-fpm'      also of processes that start later
  sudo cowtop                        of the whole machine; not root: of your own processes
)";

constexpr const char* kAfterColumns =
    R"(Pages are of 4 KiB, counted where a write raised a page fault.  "-" is a figure that is not known.

Live view (without a command, or with --live): needs a terminal for input and output.  h shows its
keys.  q ends it: a command runs on, and the report comes at its end; of what runs already it comes
at once.  Ctrl-C also goes to the command.  The command reads nothing from the terminal meanwhile.
What it writes is kept in a file without a name in /tmp, shown by l, and printed at the end.
Without a terminal and without a command, cowtop prints its report after Ctrl-C or SIGTERM, or when
the processes of -p have ended, or so long after as --duration says.

Backends:
  tracepoint  Exact, every process from its first instruction.  Needs root, or CAP_BPF and
              CAP_PERFMON, and a kernel with BTF.  It alone samples code.
  pagemap     Sampled from /proc, without privileges.  It counts pages that are no longer shared,
              whoever copied them; not the copies of the root itself, nor processes that end before
              they are seen (it says how many).  At most a fifth of one CPU.
  auto        The first that works (default); says so when it is not the first.

Exit status: the command's own; 128+N when signal N ended it; 127 command not found;
126 not executable; 125 an error of cowtop's own or bad usage; 99 over the budget of cowtop check.)";

// Examples, each column of --wide from the glossary, and the rest.
std::string footer() {
  constexpr int kWordColumns = 14;
  constexpr int kMeaningColumns = 82;
  std::string text = std::string(kExamples) + "\nColumns of --wide:\n";
  for (const Term& term : glossary()) {
    if (!term.is_column) continue;
    std::string word(term.word);
    for (const std::string& line : live::wrap(term.meaning, kMeaningColumns)) {
      text += fmt::format("  {:<{}}{}\n", word, kWordColumns, line);
      word.clear();
    }
  }
  return text + kAfterColumns;
}

}  // namespace

Expected<ParsedArguments> parse_arguments(std::vector<std::string> words) {
  ParsedArguments parsed;
  Options& options = parsed.options;
  CommandLine line({"cowtop", kCowtopDescription, kCowtopUsage, footer()});
  const MeasureArguments measure(line.app(), MeasureArguments::Otherwise::everything);
  line.app().add_flag("--json", options.json, "Print one JSON object (schema cowshed.run/2)");
  line.app().add_flag("--all", options.text.each_process,
                      "Report each process in a row of its own");
  line.app().add_flag("--wide", options.text.wide, "Report every count of every process");
  bool live = false;
  line.app().add_flag("--live", live,
                      "Show a command's copies while it runs; its output comes after");
  line.add_file("-o,--output", options.output, "Write the report to FILE, not to standard output");
  TRY(parsed.exit_status, line.parse_with_command(std::move(words)));
  if (parsed.exit_status) return parsed;
  if (options.json && (options.text.wide || options.text.each_process))
    return line.wrong("--json has all of it: without --all and --wide");
  if (live && (options.json || !options.output.empty()))
    return line.wrong("--live: not with --json or -o");
  TRY(options.measure, line.checked(measure.options(line.command())));
  const bool has_command = !options.measure.command.empty();
  options.live = (live || !has_command) && !options.json && options.output.empty();
  return parsed;
}

}  // namespace cowshed::cowtop
