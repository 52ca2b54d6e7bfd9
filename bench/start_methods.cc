#include <algorithm>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/share/runtime.h>

#include "holder.h"
#include "machine.h"
#include "program.h"
#include "starts.h"

// How long a worker takes to its first line, and to its end, by every method there is and by how
// much the starting process holds, and in what.
namespace cowshed::bench {
namespace {

using nlohmann::json;

class StartWork final : public SubjectWork {
 public:
  explicit StartWork(const json& configuration) : holder_(configuration) {}

  json facts() const override { return holder_.facts(); }

  json answer(const json& question) override {
    const StartTimes times = starter_.measure(question["method"]);
    return {{"begin_us", times.begin_us}, {"cycle_us", times.cycle_us}};
  }

 private:
  Holder holder_;
  Starter starter_;
};

std::unique_ptr<SubjectWork> make_work(const json& configuration) {
  return std::make_unique<StartWork>(configuration);
}

struct Turn {
  std::string name;
  std::string method;
};

// All methods in turns, in the one process that holds the memory.
void measure_methods(const std::string& holding, Subject& subject,
                     const std::vector<std::string>& methods, int pairs, Report& report) {
  const std::string& rival = methods[0];
  std::vector<Turn> turns;
  turns.reserve(methods.size() + 1);
  for (const auto& method : methods) turns.push_back({method, method});
  turns.push_back({rival + " again", rival});
  for (const auto& method : methods) subject.ask({{"method", method}});  // warm, and checked

  std::vector<Samples> cycles;
  std::vector<Variant> variants;
  cycles.reserve(turns.size());
  variants.reserve(turns.size());
  for (const auto& [name, method] : turns) {
    auto& cycle = cycles.emplace_back(Samples{name, {}}).values;
    variants.push_back({name, [&subject, &cycle, method = method] {
                          const json times = subject.ask({{"method", method}});
                          cycle.push_back(times["cycle_us"]);
                          return times["begin_us"].get<double>();
                        }});
  }
  std::vector<Samples> begins = interleave(variants, pairs);
  for (const auto& [what, samples] : {std::pair("begin", &begins), std::pair("cycle", &cycles)}) {
    const std::string group = fmt::format("{}/{}", what, holding);
    for (const auto& [name, values] : *samples) report.figure(group, name, median(values), "us");
    const auto& basis = samples->front().values;
    report.control(group, compare(samples->back().values, basis));
  }
  for (std::size_t i = 1; i < methods.size(); ++i) {
    report.ratio("begin/" + holding, methods[i] + " to " + rival,
                 compare(begins[i].values, begins[0].values));
  }
}

void measure(const Options& options, Report& report) {
  const std::vector<std::size_t> sizes =
      options.quick ? std::vector<std::size_t>{4_MiB, 8_MiB, 16_MiB}
                    : std::vector<std::size_t>{16_MiB, 256_MiB, 4_GiB, 12_GiB};
  report.setting("begin", "from the call to the first line of the worker");
  report.setting("cycle",
                 "from the call until the worker has been reaped and what it said is there");
  report.setting("heap", kHeapSetting);
  report.setting("huge heap", kHugeHeapSetting);
  report.setting("arena", "frozen (strict)");
  report.setting("bare fork", kBareForkSetting);
  report.setting(
      "clone3",
      "CLONE_PIDFD | CLONE_CLEAR_SIGHAND, SIGCHLD; waitid(P_PIDFD); runs no pthread_atfork()");
  report.setting("vfork", "vfork() and execve() of this program, as posix_spawn");
  report.setting("posix_spawn", kPosixSpawnSetting);
  report.setting("thread", "std::thread, joined: it shares everything, as no worker does");
  report.setting("fork, spawn, forkserver", "cowshed::start<f>({.method = ...})->wait()");
  report.setting("python",
                 "multiprocessing.Process of /usr/bin/python3, a Pipe, bytes on the heap");
  std::size_t most = 0;
  for (const std::string memory : {"heap", "huge heap", "arena", "python"}) {
    for (const std::size_t bytes : sizes) {
      if (options.wants(fmt::format("{}/{}", memory, size_name(bytes)))) {
        most = std::max(most, bytes);
      }
    }
  }
  touch_memory(most);
  for (const std::string memory : {"heap", "huge heap", "arena"}) {
    for (const std::size_t bytes : sizes) {
      const std::string name = fmt::format("{}/{}", memory, size_name(bytes));
      if (!options.wants(name)) continue;
      const Holding holding = {memory, "array", bytes};
      Subject subject(holding.configuration(), "", holding.environment());
      measure_methods(
          name, subject,
          {"bare fork", "clone3", "fork", "forkserver", "vfork", "posix_spawn", "spawn", "thread"},
          options.pairs, report);
    }
  }
  for (const std::size_t bytes : sizes) {
    const std::string name = fmt::format("python/{}", size_name(bytes));
    if (!options.wants(name)) continue;
    Subject subject({{"bytes", bytes}}, "start_python");
    measure_methods(name, subject, {"fork", "forkserver", "spawn"}, options.pairs, report);
  }
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  if (const auto code = cowshed::bench::is_worker(argc, argv)) return *code;
  const cowshed::Runtime runtime(argc, argv);
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "start_methods",
       .question = "how long a worker takes to start, by every method and what the parent holds",
       .pairs = 31,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_work});
}
