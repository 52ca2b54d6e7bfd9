#include <CLI/CLI.hpp>
#include <chrono>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/command_line.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/commands/commands.h>
#include <cowshed/tools/cowtop/measure/selection_options.h>
#include <cowshed/tools/cowtop/measure/signals.h>
#include <cowshed/tools/cowtop/serve/metrics_server.h>
#include <cowshed/tools/cowtop/serve/metrics_sums.h>
#include <cowshed/tools/cowtop/serve/timed_profile.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kServeDescription =
    "Measures what runs on this machine, and exports it over HTTP for Prometheus (OpenMetrics).";

constexpr const char* kServeUsage =
    "cowtop serve --listen HOST:PORT [-p PID | --cgroup PATH | --comm REGEX]";

constexpr const char* kServeFooter = R"(Examples:
  sudo cowtop serve --listen 127.0.0.1:9417
                                     the whole machine; not root: your processes
  sudo cowtop serve --listen '[::1]:9417' --cgroup /system.slice
                                     its services, at the address of IPv6
  curl http://127.0.0.1:9417/metrics
                                     what Prometheus reads
  go tool pprof -http : 'http://127.0.0.1:9417/debug/pprof/cow?seconds=30'
                                     the code that copies, for 30 s

The sums are by name of the command (comm) and cgroup, and by published object; they include
processes that have ended, and never fall while cowtop runs.  It runs until SIGTERM or Ctrl-C.
Whoever reaches the port can read the names of commands, cgroups and, in a profile, functions:
there is no password.  A profile takes 1 to 300 seconds (30), one at a time.

Exit status: 0 after a signal; 125 an error or bad usage.)";

constexpr std::size_t kUsualSeries = 100;
constexpr std::size_t kMostSeries = 10'000;

struct ServeOptions {
  ListenAddress listen;
  Selection selection;
  cow::BackendChoice backend = cow::BackendChoice::automatic;
  std::size_t most_series = kUsualSeries;
};

// The exact backend misses nothing in between; of the other, what it costs is the measure.
std::chrono::milliseconds pause_of(const cow::Backend& backend) {
  constexpr std::chrono::milliseconds kExact(1000);
  constexpr std::chrono::milliseconds kSampled(100);
  return backend.exact() ? kExact : std::max(kSampled, backend.interval());
}

Expected<void> serve(MetricsServer& server, cow::Backend& backend, SelectedProcesses& selected,
                     EndSignals& signals, std::size_t most_series) {
  MetricsSums sums(most_series);
  for (bool is_started = false; !signals.next();) {
    TRY_VOID(selected.attach_new(backend));
    TRY_VOID(backend.sample());
    const auto ended = backend.take_ended();
    auto latest = std::make_shared<cow::Measurement>(backend.measurement());
    sums.add(*latest, ended);
    Metrics metrics = sums.metrics();
    metrics.latest = std::move(latest);
    server.publish(std::move(metrics));
    if (!std::exchange(is_started, true)) server.start();
    pollfd signal{signals.fd(), POLLIN, 0};
    ::poll(&signal, 1, static_cast<int>(pause_of(backend).count()));
  }
  return {};
}

Expected<int> run(const ServeOptions& options) {
  // Before any thread is started, which would take the signals.
  TRY(auto signals, EndSignals::open());
  const auto take_profile = [&](std::chrono::seconds time, int stop_fd) {
    return timed_profile(options.selection, options.backend, time, stop_fd);
  };
  TRY(auto server, MetricsServer::open(options.listen, take_profile));
  TRY(auto selected, SelectedProcesses::open(options.selection));
  TRY(auto opened, cow::open_backend(options.backend));
  if (!opened.notice.empty()) complain(opened.notice);
  const auto attached = selected.attach(*opened.backend);
  if (!attached && !selected.grows()) return tl::make_unexpected(attached.error());
  if (!attached) {
    const bool may_come = attached.error().code == ErrorCode::no_such_process;
    complain(attached.error().message + (may_come ? " yet" : ""));
  }
  if (attached && !attached->refused.empty()) complain(refused_line(*attached));
  const std::string address = text_of(server->address());
  if (!is_loopback(options.listen))
    complain(address +
             ": whoever reaches it can read the names of commands, cgroups and functions");
  // Root has more of the others' than their names.
  const bool lacks_others = ::geteuid() != 0 && !opened.backend->exact();
  complain(fmt::format("http://{}/metrics has {}{} by the {} backend; Ctrl-C ends", address,
                       options.selection.text(), lacks_others ? " that we may read," : "",
                       opened.backend->name()));
  TRY_VOID(serve(*server, *opened.backend, selected, signals, options.most_series));
  return 0;
}

}  // namespace

Expected<int> serve_command(std::vector<std::string> words) {
  CommandLine line({"cowtop serve", kServeDescription, kServeUsage, kServeFooter});
  ServeOptions options;
  std::string listen;
  line.app()
      .add_option("--listen", listen, "Where to serve /metrics; port 0: any that is free")
      ->type_name("HOST:PORT")
      ->required();
  line.app()
      .add_option("--max-series", options.most_series,
                  "As many names of commands with their cgroups, and as many objects, have series"
                  " of their own (100); the rest is summed as \"other\"")
      ->type_name("N")
      ->check(CLI::Range(std::size_t{1}, kMostSeries).description(""));
  const SelectionArguments arguments(line.app());
  TRY(const auto status, line.parse(std::move(words)));
  if (status) return *status;
  TRY(options.listen, line.checked(parse_listen_address(listen)));
  TRY(auto selection, line.checked(arguments.selection()));
  if (selection) options.selection = std::move(*selection);
  TRY(options.backend, line.checked(arguments.backend()));
  return run(options);
}

}  // namespace cowshed::cowtop
