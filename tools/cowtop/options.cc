#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <map>

#include <cowshed/tools/cowtop/exit_status.h>
#include <cowshed/tools/cowtop/options.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kDescription =
    "Counts the memory that forked processes copy although they meant to share it.\n"
    "Runs a command, or attaches to a running process tree, and prints one row per process.";

constexpr const char* kFooter = R"(Examples:
  cowtop -- ./server --workers 4     what each worker copied, when the command has ended
  cowtop --json -o run.json -- CMD   the same for a machine to read
  cowtop --sites -- CMD              and which lines of code copied, most first
  cowtop --latency -- CMD            and how long the copies took
  cowtop --diff -- CMD               and how much of what was copied was changed
  cowtop --diff-at-exit -- CMD       the same of each process at its end
  sudo cowtop -p $(pidof -s redis-server)
                                     what happens from now on, until Ctrl-C

Backends:
  tracepoint  exact; every process from its first instruction, however short its life.
              Needs root, or CAP_BPF and CAP_PERFMON, and a kernel with BTF.
              It alone can tell code sites and times.
  pagemap     sampled from /proc, no privilege; pages no longer shared, whoever copied them.
              Not: what the root itself copied, faults that copy nothing, code sites, processes
              that end before they are seen (it says how many).  At most a fifth of one CPU.
  auto        the first that works; says so when it is not the first.

Exit status: the command's own; 128+N when signal N ended it; 127 command not found;
126 not executable; 125 an error of cowtop's own or bad usage.)";

constexpr std::uint32_t kUsualPeriod = 64;
constexpr std::uint32_t kMostPeriod = 1'000'000'000;

class UsageFormatter : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* /*app*/, std::string /*name*/) const override {
    return "Usage: cowtop [OPTIONS] -- COMMAND [ARGS...]\n       cowtop [OPTIONS] -p PID\n";
  }
};

}  // namespace

ParsedArguments parse_arguments(int argc, const char* const* argv) {
  ParsedArguments parsed;
  Options& options = parsed.options;

  // Everything after -- is the command's, whatever it looks like.
  std::vector<std::string> own(argv + std::min(argc, 1), argv + argc);
  const auto separator = std::find(own.begin(), own.end(), "--");
  if (separator != own.end()) {
    options.command.assign(separator + 1, own.end());
    own.erase(separator, own.end());
  }

  CLI::App app(kDescription, "cowtop");
  app.formatter(std::make_shared<UsageFormatter>());
  app.footer(kFooter);
  app.set_version_flag("--version", "cowtop " COWSHED_VERSION);
  // `cowtop make -j4` too: from the first word that is no option of ours, all is the command's.
  app.prefix_command();
  pid_t pid = 0;
  CLI::Option* attach =
      app.add_option("-p,--pid", pid, "Attach to this process and its descendants")
          ->check(CLI::Validator(
              [](const std::string& text) {
                pid_t value = 0;
                const char* end = text.data() + text.size();
                const auto parsed_number = std::from_chars(text.data(), end, value);
                const bool good = parsed_number.ec == std::errc() && parsed_number.ptr == end;
                return good && value > 0 ? std::string() : "'" + text + "' is not a process ID";
              },
              ""))
          ->type_name("PID");
  std::string backend = "auto";
  app.add_option("--backend", backend, "auto, tracepoint or pagemap")->type_name("NAME");
  bool sites = false;
  app.add_flag("--sites", sites,
               "Also the code, the mappings and the address ranges that copied most, by sampling;"
               " the counts of pages stay exact");
  CLI::Option* period =
      app.add_option("-c,--count", options.sampling.period,
                     "With --sites: sample one copy in N of each thread (64), as perf record -c")
          ->type_name("N")
          ->check(CLI::Range(1U, kMostPeriod).description(""));
  bool latency = false;
  app.add_flag("--latency", latency,
               "Also how long the faults that copied took, in all and as a histogram.  Slows down"
               " each page fault of the machine meanwhile");
  bool diff = false;
  app.add_flag("--diff", diff,
               "Also compare copied pages with those of processes that still share the original,"
               " at intervals: how many bytes were changed.  Takes at most a sixth of a CPU"
               " for each process");
  bool diff_at_exit = false;
  app.add_flag("--diff-at-exit", diff_at_exit,
               "The same for each process when it exits, however short its life: all processes are"
               " traced (ptrace), so none can be run under gdb or strace at the same time, nor run"
               " them.  Holds each at its exit, and at its start, for some 30 ms per GiB that is"
               " resident and some us per page copied; the report says how long");
  app.add_flag("--json", options.json, "Print one JSON object (schema cowshed.run/1), not a table");
  app.add_option("-o,--output", options.output, "Write the report to FILE, not to standard output")
      ->type_name("FILE")
      ->check(CLI::Validator(
          [](const std::string& text) {
            return std::string(text.empty() ? "the name of the file is empty" : "");
          },
          ""));

  const auto fail = [&parsed](const std::string& message) {
    std::cerr << "cowtop: " << message << " (see cowtop --help)\n";
    parsed.exit_status = kOwnError;
    return parsed;
  };
  try {
    std::reverse(own.begin(), own.end());  // the order that CLI11 takes a vector in
    app.parse(own);
  } catch (const CLI::Success& success) {  // --help, --version
    app.exit(success);
    parsed.exit_status = 0;
    return parsed;
  } catch (const CLI::ParseError& error) {
    std::string message = error.what();
    std::replace(message.begin(), message.end(), '\n', ' ');
    return fail(message);
  }
  if (period->count() > 0 && !sites) return fail("-c: only with --sites");
  if (sites && period->count() == 0) options.sampling.period = kUsualPeriod;
  const std::map<std::string, cow::BackendChoice> backends = {
      {"auto", cow::BackendChoice::automatic},
      {"tracepoint", cow::BackendChoice::tracepoint},
      {"pagemap", cow::BackendChoice::pagemap}};
  const auto chosen = backends.find(backend);
  if (chosen == backends.end()) {
    return fail("--backend: '" + backend + "' is not auto, tracepoint or pagemap");
  }
  options.backend = chosen->second;
  if (diff) options.diff = Diff::at_intervals;
  if (diff_at_exit) options.diff = Diff::at_exit;
  if (sites && options.backend == cow::BackendChoice::pagemap) {
    return fail("--sites: the pagemap backend does not see who copies");
  }
  if (latency && options.backend == cow::BackendChoice::pagemap) {
    return fail("--latency: the pagemap backend does not see faults");
  }
  if (latency) options.timing = Timing::on;
  std::vector<std::string> rest = app.remaining();
  if (!rest.empty() && rest[0].size() > 1 && rest[0][0] == '-') {
    return fail(rest[0] + ": no such option");
  }
  if (!rest.empty() && !options.command.empty()) {
    return fail(rest[0] + ": an argument before -- that is no option");
  }
  if (!rest.empty()) options.command = std::move(rest);
  if (attach->count() > 0) options.attach_pid = pid;
  if (options.attach_pid && !options.command.empty()) {
    return fail("give either -p PID or a command, not both");
  }
  if (!options.attach_pid && options.command.empty()) {
    return fail("nothing to measure: give a command after --, or -p PID");
  }
  return parsed;
}

}  // namespace cowshed::cowtop
