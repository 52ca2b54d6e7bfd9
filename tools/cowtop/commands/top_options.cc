#include <CLI/CLI.hpp>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/command_line.h>
#include <cowshed/tools/cowtop/commands/top_options.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kCowtopDescription =
    "Counts the memory that forked processes copy although they meant to share it.\n"
    "Runs a command, or attaches to what runs already (all of it, unless told which), shows on a\n"
    "terminal what happens, and prints one row per process.";

constexpr const char* kCowtopUsage =
    "cowtop [OPTIONS] -- COMMAND [ARGS...]\n"
    "       cowtop [OPTIONS] [-p PID[,PID...] | --cgroup PATH | --comm REGEX]\n"
    "       cowtop record -o FILE [OPTIONS] -- COMMAND [ARGS...]\n"
    "       cowtop report FILE\n"
    "       cowtop diff BEFORE AFTER\n"
    "       cowtop check LIMITS [OPTIONS] -- COMMAND [ARGS...]\n"
    "       cowtop serve --listen HOST:PORT\n"
    "       cowtop doctor\n"
    "Each subcommand has a --help of its own.";

constexpr const char* kCowtopFooter = R"(Examples:
  cowtop -- ./server --workers 4     what each worker copied, when the command has ended
  cowtop --json -o run.json -- CMD   the same for a machine to read
  cowtop --sites -- CMD              and which lines of code copied, most first
  sudo cowtop -u $USER -- CMD        the command runs as yourself, not as root
  sudo cowtop -p $(pidof -s redis-server)
                                     what happens from now on, until Ctrl-C
  sudo cowtop --cgroup /system.slice/apache2.service
  sudo cowtop --comm '^php-fpm'      also of processes that start later
  sudo cowtop                        of the whole machine; not root: of one's own processes

Columns:
  AT FORK MiB  what the process's parent had at the fork: resident anonymous memory, frozen arenas;
               a dash after an exec, which ends the sharing
  COPIED MiB   what the kernel copied because the process wrote to shared pages: ANON and FILE
  COPIED %     COPIED as a share of AT FORK
  ANON         pages copied in mappings without a file behind them: the heap, the stack
  FILE         pages copied in private mappings of files: a library's data, an arena
  REUSED       written to when nobody else used the page any more: made writable, nothing copied
  ZERO         written to where only a read had been, of the zero page: a page more, nothing copied
  FIRST        first touched by this process: a new page of zeros; a huge page counts as 512
  SPLIT        pages of 2 MiB that a write broke into 4 KiB ones, of which it then copies one
  NOTIFY       first writes to a clean page of a shared file mapping: nothing copied
  FAILED       writes that were not allowed: SIGSEGV, SIGBUS or EFAULT
  OTHER        writes that are none of these: the page was in the page cache or swapped out, say
  END          exit status or signal, or whether it still runs
Pages are of 4 KiB, counted where a write raised a page fault.  A dash is a figure that the backend
cannot know, or that there is not: nobody measured has forked the root, so AT FORK has one there.

Live view (not with --no-live, --json or -o): where standard input and output are a terminal.  h
tells its keys.  It stays when a command has ended, so that what that did can be looked at.  q ends
it: a command runs on, and the report comes at its end; of what runs already it comes at once.
Ctrl-C goes to the command, too, and the view ends with it.  The command reads nothing from the
terminal; what it writes there is kept in a file without a name in /tmp, shown by l, and printed
when the view has ended.

Backends:
  tracepoint  exact; every process from its first instruction, however short its life.
              Needs root, or CAP_BPF and CAP_PERFMON, and a kernel with BTF.
              It alone can tell code sites and times.
  pagemap     sampled from /proc, no privilege; pages no longer shared, whoever copied them.
              Not: what the root itself copied, faults that copy nothing, code sites, processes
              that end before they are seen (it says how many).  At most a fifth of one CPU.
  auto        the first that works; says so when it is not the first.

Exit status: the command's own; 128+N when signal N ended it; 127 command not found;
126 not executable; 125 an error of cowtop's own or bad usage; 99 over the budget of cowtop check.)";

}  // namespace

Expected<ParsedArguments> parse_arguments(std::vector<std::string> words) {
  ParsedArguments parsed;
  Options& options = parsed.options;
  CommandLine line({"cowtop", kCowtopDescription, kCowtopUsage, kCowtopFooter});
  const MeasureArguments measure(line.app(), MeasureArguments::Otherwise::everything);
  line.app().add_flag("--json", options.json,
                      "Print one JSON object (schema cowshed.run/2), not a table");
  bool no_live = false;
  line.app().add_flag("--no-live", no_live, "The report at the end alone, also on a terminal");
  line.add_file("-o,--output", options.output, "Write the report to FILE, not to standard output");
  TRY(parsed.exit_status, line.parse_with_command(std::move(words)));
  if (parsed.exit_status) return parsed;
  options.live = !no_live && !options.json && options.output.empty();
  TRY(options.measure, line.checked(measure.options(line.command())));
  return parsed;
}

}  // namespace cowshed::cowtop
