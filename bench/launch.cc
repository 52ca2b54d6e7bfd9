#include <array>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <spawn.h>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/share/forkserver.h>
#include <cowshed/share/runtime.h>
#include <cowshed/share/workers.h>

#include "holder.h"
#include "machine.h"
#include "program.h"

// How long a worker takes to its first line, and to its end, by how it is started and by what its
// starter shares with it.
namespace cowshed::bench {
namespace {

using nlohmann::json;

constexpr int kRounds = 3;  // of fresh processes
constexpr const char* kBegin = "--begin";

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::int64_t begin_worker() { return now_ns(); }

// Both from before the start.
struct Times {
  std::int64_t begun_ns;  // when the worker's first line runs
  std::int64_t ended_ns;  // when it has been reaped
};

class LaunchWork final : public SubjectWork {
 public:
  explicit LaunchWork(const json& configuration)
      : clock_(static_cast<std::int64_t*>(
            mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    if (clock_ == MAP_FAILED) throw std::runtime_error("mmap failed");
    if (configuration["memory"] != "none") holder_.emplace(configuration);
    method_ = configuration["method"];
    if (method_ == "forkserver") {
      auto server = ForkServer::start();
      if (!server) throw std::runtime_error(server.error().message);
      server_.emplace(std::move(*server));
    }
    for (int i = 0; i < 5; ++i) measure();  // warm
  }

  json answer(const json&) override {
    const std::int64_t before = now_ns();
    const Times times = measure();
    return {{"begin_us", static_cast<double>(times.begun_ns - before) / 1000},
            {"cycle_us", static_cast<double>(times.ended_ns - before) / 1000}};
  }

 private:
  Times measure() {
    if (method_ == "bare fork") return bare_fork();
    if (method_ == "posix_spawn") return bare_spawn();
    WorkersOptions options;
    if (method_ == "spawn") options.method = Start::spawn;
    if (method_ == "forkserver") {
      options.method = Start::forkserver;
      options.server = &*server_;
    }
    auto workers = start<begin_worker>(options);
    if (!workers) throw std::runtime_error(workers.error().message);
    const auto results = workers->wait();
    if (!results) throw std::runtime_error(results.error().message);
    if (!(*results)[0].value) throw std::runtime_error((*results)[0].error);
    return {*(*results)[0].value, now_ns()};
  }

  Times bare_fork() {
    const pid_t pid = fork();
    if (pid == 0) {
      *clock_ = now_ns();
      _exit(0);
    }
    if (pid < 0 || waitpid(pid, nullptr, 0) != pid) throw std::runtime_error("fork failed");
    return {*clock_, now_ns()};
  }

  // The same program, whose main() says when it began.
  static Times bare_spawn() {
    std::array<int, 2> ends = {};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::array<char*, 3> arguments = {const_cast<char*>("launch"), const_cast<char*>(kBegin),
                                      nullptr};
    pid_t pid = 0;
    const int error =
        posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    std::int64_t begun = 0;
    const bool said = error == 0 && read(ends[0], &begun, sizeof begun) == sizeof begun;
    close(ends[0]);
    if (!said || waitpid(pid, nullptr, 0) != pid) throw std::runtime_error("posix_spawn failed");
    return {begun, now_ns()};
  }

  std::int64_t* clock_;
  std::string method_;
  std::optional<Holder> holder_;
  std::optional<ForkServer> server_;
};

std::unique_ptr<SubjectWork> make_work(const json& configuration) {
  return std::make_unique<LaunchWork>(configuration);
}

struct Method {
  std::string name;
  std::string rival;
  double most;  // times the rival
};

// A fresh process of each, in turns; both times of each sample.
void measure_method(const Method& method, std::size_t small, std::size_t large,
                    const Options& options, Report& report) {
  const auto none = json{{"memory", "none"}, {"method", method.rival}};
  const auto with = [&](std::size_t bytes) {
    json configuration = Holding{"arena", "array", bytes}.configuration();
    configuration["method"] = method.name;
    return configuration;
  };
  const std::vector<std::pair<std::string, json>> all = {{method.rival, none},
                                                         {size_name(small), with(small)},
                                                         {size_name(large), with(large)},
                                                         {method.rival + " again", none}};
  std::vector<Samples> begins;
  std::vector<Samples> cycles;
  for (int round = 0; round < (options.quick ? 1 : kRounds); ++round) {
    std::vector<std::unique_ptr<Subject>> subjects;
    std::vector<Variant> variants;
    std::vector<std::vector<double>> round_cycles(all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      subjects.push_back(std::make_unique<Subject>(all[i].second));
      variants.push_back({all[i].first, [&, i, subject = subjects.back().get()] {
                            const json times = subject->ask({});
                            round_cycles[i].push_back(times["cycle_us"]);
                            return times["begin_us"].get<double>();
                          }});
    }
    append(begins, interleave(variants, options.pairs));
    std::vector<Samples> of_round;
    for (std::size_t i = 0; i < all.size(); ++i) {
      of_round.push_back({all[i].first, round_cycles[i]});
    }
    append(cycles, of_round);
  }
  for (const auto& [what, samples] : {std::pair("begin", &begins), std::pair("cycle", &cycles)}) {
    const std::string group = fmt::format("{}/{}", method.name, what);
    for (const auto& [name, values] : *samples) {
      report.figure(group, name, median(values), "us");
    }
    const auto& rival = samples_of(*samples, method.rival);
    const Comparison cost = compare(samples_of(*samples, size_name(large)), rival);
    const Comparison flat =
        compare(samples_of(*samples, size_name(large)), samples_of(*samples, size_name(small)));
    if (std::strcmp(what, "begin") == 0) {
      report.goal({fmt::format("{}: {} to {}", group, size_name(large), method.rival),
                   Goal::Bound::at_most, method.most, ""},
                  cost.ratio, cost.interval);
      report.goal({fmt::format("{}: {} to {}", group, size_name(large), size_name(small)),
                   Goal::Bound::at_most, 1.3, ""},
                  flat.ratio, flat.interval);
    } else {
      report.ratio(group, size_name(large) + " to " + method.rival, cost);
    }
    report.control(group, compare(samples_of(*samples, method.rival + " again"), rival));
  }
}

void measure(const Options& options, Report& report) {
  const std::size_t small = options.quick ? 4_MiB : 64_MiB;
  const std::size_t large = options.quick ? 16_MiB : 4_GiB;
  report.setting("begin", "from the call to the first line of the worker's function");
  report.setting("cycle", "from the call until the worker has been reaped and its value is there");
  report.setting("bare fork", "fork(), _exit(), waitpid() in a process without an arena");
  report.setting("posix_spawn", "of this program, whose main() writes the time to a pipe and ends");
  if (!options.quick) touch_memory(10_GiB);
  for (const Method& method :
       {Method{"fork", "bare fork", 1.5}, Method{"forkserver", "bare fork", 2},
        Method{"spawn", "posix_spawn", 1.3}}) {
    if (options.wants(method.name)) measure_method(method, small, large, options, report);
  }
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], cowshed::bench::kBegin) == 0) {
    const std::int64_t now = cowshed::bench::now_ns();
    return write(STDOUT_FILENO, &now, sizeof now) == sizeof now ? 0 : 1;
  }
  const cowshed::Runtime runtime(argc, argv);
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "launch",
       .question = "how long a worker takes to start by fork, spawn and forkserver",
       .pairs = 31,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_work});
}
