#include <array>
#include <condition_variable>
#include <fmt/format.h>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <cowshed/share/runtime.h>

#include "accounting.h"
#include "crowd.h"
#include "got.h"
#include "holder.h"
#include "machine.h"
#include "program.h"
#include "repeat.h"
#include "start_jobs.h"
#include "starts.h"

// How long a worker takes to its first line, and to its end, by every method there is and by how
// much the starting process holds, and in what; beside how many threads, and how many workers.
namespace cowshed::bench {
namespace {

using nlohmann::json;

void sleep_until_stopped(const std::stop_token& stop) {
  std::mutex mutex;
  std::unique_lock lock(mutex);
  std::condition_variable_any().wait(lock, stop, [] { return false; });
}

class StartWork final : public SubjectWork {
 public:
  explicit StartWork(const json& configuration)
      : holder_(configuration), job_bytes_(configuration.value("job_bytes", std::size_t{0})) {
    for (int i = 1; i < configuration.value("threads", 1); ++i) {
      threads_.emplace_back(sleep_until_stopped);
    }
  }

  json facts() const override { return holder_.facts(); }

  json answer(const json& question) override {
    const std::string method = question["method"];
    if (question.contains("workers")) return crowd(method, question);
    if (question.contains("job")) {
      if (!jobs_) jobs_.emplace(holder_, job_bytes_);
      const auto times = repeat([&] { return jobs_->measure(method); });
      return {{"begin_us", median_of(times, &JobTimes::first_us)},
              {"cycle_us", median_of(times, &JobTimes::whole_us)}};
    }
    const StartTimes times = starter_.measure(method);
    return {{"begin_us", times.begin_us}, {"cycle_us", times.cycle_us}};
  }

 private:
  json crowd(const std::string& method, const json& question) {
    if (!server_ && method == "forkserver") server_.emplace(got(ForkServer::start()));
    const ForkServer* server = method == "forkserver" ? &*server_ : nullptr;
    const Crowd crowd = start_crowd(method, question["workers"], server, question["look"]);
    return {{"begin_us", crowd.begun_us},
            {"cycle_us", crowd.ended_us},
            {"tables", crowd.table_bytes},
            {"memory", crowd.memory_bytes},
            {"pids", crowd.pids}};
  }

  Holder holder_;
  std::size_t job_bytes_;
  std::optional<Jobs> jobs_;
  Starter starter_;
  std::optional<ForkServer> server_;  // of the crowds
  std::vector<std::jthread> threads_;
};

std::unique_ptr<SubjectWork> make_work(const json& configuration) {
  return std::make_unique<StartWork>(configuration);
}

struct Sizes {
  std::vector<std::size_t> held;  // the first is that of the job that is always the same, too
  std::vector<std::size_t> jobs;
  std::size_t held_beside_workers;
  std::size_t held_beside_threads;
};

Sizes sizes_of(const Options& options) {
  if (options.quick) return {{4_MiB, 8_MiB, 16_MiB}, {1_MiB, 2_MiB, 4_MiB}, 4_MiB, 4_MiB};
  return {{16_MiB, 256_MiB, 4_GiB, 12_GiB}, {16_MiB, 64_MiB, 256_MiB}, 64_MiB, 16_MiB};
}

struct Turn {
  std::string name;
  std::string method;
};

struct Question {
  std::array<std::string, 2> groups;  // of its two times
  json of_one;                        // that it asks, beside the method
};

Question one_worker() { return {{"begin", "cycle"}, json::object()}; }
Question job(const std::string& prefix = "") {
  return {{prefix + "first answer", prefix + "whole job"}, {{"job", true}}};
}

// The library's first: the ratios are to its fork.
const std::vector<std::string> all_methods = {"fork",   "forkserver", "spawn",       "bare fork",
                                              "clone3", "vfork",      "posix_spawn", "thread"};
const std::vector<std::string> methods_of_python = {"fork", "forkserver", "spawn"};

// What a program that is started by hand cannot have is an arena.
std::vector<std::string> methods_for(const std::string& memory) {
  std::vector<std::string> methods = all_methods;
  if (memory == "arena") std::erase_if(methods, starts_program);
  return methods;
}

// All methods in turns, in the one process that holds the memory.
void measure_methods(const std::string& holding, Subject& subject, const Question& question,
                     const std::vector<std::string>& methods, int pairs, Report& report) {
  const auto ask = [&](const std::string& method) {
    json asked = question.of_one;
    asked["method"] = method;
    return subject.ask(asked);
  };
  const std::string& rival = methods[0];
  std::vector<Turn> turns;
  turns.reserve(methods.size() + 1);
  for (const auto& method : methods) turns.push_back({method, method});
  turns.push_back({rival + " again", rival});
  for (const auto& method : methods) ask(method);  // warm, and checked

  std::vector<Samples> cycles;
  std::vector<Variant> variants;
  cycles.reserve(turns.size());
  variants.reserve(turns.size());
  for (const auto& [name, method] : turns) {
    auto& cycle = cycles.emplace_back(Samples{name, {}}).values;
    variants.push_back({name, [&ask, &cycle, method = method] {
                          const json times = ask(method);
                          cycle.push_back(times["cycle_us"]);
                          return times["begin_us"].get<double>();
                        }});
  }
  std::vector<Samples> begins = interleave(variants, pairs);
  for (const auto& [what, samples] :
       {std::pair(question.groups[0], &begins), std::pair(question.groups[1], &cycles)}) {
    const std::string group = fmt::format("{}/{}", what, holding);
    for (const auto& [name, values] : *samples) report.figure(group, name, median(values), "us");
    const auto& basis = samples->front().values;
    for (std::size_t i = 1; i < methods.size(); ++i) {
      report.ratio(group, methods[i] + " to " + rival, compare(samples->at(i).values, basis));
    }
    report.control(group, compare(samples->back().values, basis));
  }
}

std::string count_name(int count, const std::string& what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

// By the kernel's count, from their start to their end.
double copies_of(Accounting& accounting, const std::vector<pid_t>& workers) {
  const auto& copies = accounting.copies();
  double sum = 0;
  for (const pid_t pid : workers) sum += static_cast<double>(copies.at(pid));
  return sum;
}

// What the kernel counts of workers that live at the same time, by every method.
void look_at_workers(const std::string& prefix, const std::string& name, int count,
                     Subject& subject, bool can_account, Report& report) {
  const auto figure = [&](const std::string& what, const std::string& method, double value,
                          const std::string& unit) {
    report.figure(fmt::format("{}{}/{}", prefix, what, name), method, value, unit);
  };
  std::optional<Accounting> accounting;
  if (can_account) accounting.emplace();
  for (const auto& method : all_methods) {
    const json crowd = subject.ask({{"method", method}, {"workers", count}, {"look", true}});
    if (accounting) {
      figure("copied pages", method, copies_of(*accounting, crowd["pids"]), "");
    }
    figure("page tables", method, crowd["tables"].get<double>() / 1024, "KiB");
    figure("memory", method, crowd["memory"].get<double>() / 1024, "KiB");
  }
  if (accounting) accounting->stop();
}

// Workers that live at the same time, of one process.
void measure_workers(const Options& options, bool can_account, Report& report) {
  const std::size_t bytes = sizes_of(options).held_beside_workers;
  for (const std::string memory : {"heap", "huge heap", "arena"}) {
    if (!options.wants(memory + "/workers")) continue;
    const Holding holding = {memory, "array", bytes};
    Subject subject(holding.configuration(), "", holding.environment());
    for (const int count :
         options.quick ? std::vector<int>{1, 2, 4} : std::vector<int>{1, 8, 64, 256}) {
      const std::string name = fmt::format("{}/{}", memory, count_name(count, "worker"));
      measure_methods(name, subject,
                      {{"all begun", "all ended"}, {{"workers", count}, {"look", false}}},
                      all_methods, options.pairs, report);
      look_at_workers("", name, count, subject, can_account, report);
    }
  }
}

// One worker that reads what its parent holds.
void measure_jobs(const Options& options, Report& report) {
  const std::vector<std::size_t> sizes = sizes_of(options).jobs;
  for (const std::string memory : {"heap", "huge heap", "arena"}) {
    for (const std::size_t bytes : sizes) {
      const std::string name = fmt::format("{}/{}", memory, size_name(bytes));
      if (!options.wants("job/" + name)) continue;
      const Holding holding = {memory, "array", memory == "arena" ? bytes : 0};
      json configuration = holding.configuration();
      configuration["job_bytes"] = bytes;
      Subject subject(configuration, "", holding.environment());
      measure_methods(name, subject, job(), methods_for(memory), options.pairs, report);
    }
  }
  for (const std::size_t bytes : sizes) {
    const std::string name = fmt::format("python/{}", size_name(bytes));
    if (!options.wants("job/" + name) || bytes == sizes.back()) continue;
    Subject subject({{"bytes", bytes}, {"job", true}}, "start_python");
    measure_methods(name, subject, job(), methods_of_python, options.pairs, report);
  }
}

// A parent with threads, which sleep: by every method that it may use.
void measure_threads(const Options& options, Report& report) {
  for (const std::string memory : {"heap", "huge heap", "arena"}) {
    if (!options.wants(memory + "/threads")) continue;
    const Holding holding = {memory, "array", sizes_of(options).held_beside_threads};
    for (const int count : options.quick ? std::vector<int>{1, 2, 4} : std::vector<int>{1, 8, 32}) {
      json configuration = holding.configuration();
      configuration["threads"] = count;
      Subject subject(configuration, "", holding.environment());
      measure_methods(
          fmt::format("{}/{}", memory, count_name(count, "thread")), subject, one_worker(),
          {"bare fork", "clone3", "forkserver", "vfork", "posix_spawn", "spawn", "thread"},
          options.pairs, report);
    }
  }
}

// By what the starting process holds: one worker's start, a job that is always the same, and what
// the kernel counts of it.
void measure_holdings(const Options& options, bool can_account, Report& report) {
  const std::vector<std::size_t> sizes = sizes_of(options).held;
  for (const std::string memory : {"heap", "huge heap", "arena"}) {
    for (const std::size_t bytes : sizes) {
      const std::string name = fmt::format("{}/{}", memory, size_name(bytes));
      if (!options.wants(name)) continue;
      const Holding holding = {memory, "array", bytes};
      json configuration = holding.configuration();
      configuration["job_bytes"] = sizes.front();
      Subject subject(configuration, "", holding.environment());
      measure_methods(
          name, subject, one_worker(),
          {"bare fork", "clone3", "fork", "forkserver", "vfork", "posix_spawn", "spawn", "thread"},
          options.pairs, report);
      look_at_workers("one worker's ", name, 1, subject, can_account, report);
      measure_methods(name, subject, job("fixed job, "), methods_for(memory), options.pairs,
                      report);
    }
  }
}

void measure(const Options& options, Report& report) {
  const Sizes sizes = sizes_of(options);
  report.setting("begin",
                 fmt::format("from the call to the first line of the worker; each time is {}",
                             kRepeatSetting));
  report.setting("cycle",
                 "from the call until the worker has been reaped and what it said is there");
  report.setting("all begun",
                 "workers of one start(), or started one after the other by hand, from the first "
                 "call until the last has begun; " +
                     size_name(sizes.held_beside_workers));
  report.setting("all ended", "the same, from their release until the last has been reaped");
  report.setting(
      "page tables, memory",
      "VmPTE of all workers that there are, which have read nothing; PSS of theirs, of the process "
      "that holds the data, and of its forkserver; threads have none of their own");
  report.setting("copied pages",
                 "of all these workers from their start to their end, by the kernel's own count "
                 "(taskstats)");
  report.setting("first answer",
                 "from the call until the worker has read the first word of an array of 64-bit "
                 "words of its parent's; repeated as begin, but by Python");
  report.setting("whole job",
                 "from the call until the worker has added them all up and been reaped; heap: a "
                 "std::vector, which forkserver and spawn send, vfork and posix_spawn write to a "
                 "pipe of 1 MiB, and the others find; arena: a Ref, or what they find; python: "
                 "sum() of an array.array, which forkserver and spawn pickle");
  report.setting("fixed job", fmt::format("the same, of {}, whatever else the process holds",
                                          size_name(sizes.held.front())));
  report.setting("threads",
                 fmt::format("in the starting process, which holds {}; all but one sleep",
                             size_name(sizes.held_beside_threads)));
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
  report.setting(
      "python",
      "multiprocessing.Process of /usr/bin/python3, a Pipe, bytes on the heap; no whole job "
      "of " +
          size_name(sizes.jobs.back()) + ", which takes long");
  const std::string no_count = cannot_account();
  const bool can_account = no_count.empty();
  if (!can_account) report.setting("copied pages", "not measured: " + no_count);
  if (!options.quick) touch_memory(2_GiB);
  measure_holdings(options, can_account, report);
  for (const std::size_t bytes : sizes.held) {
    const std::string name = fmt::format("python/{}", size_name(bytes));
    if (!options.wants(name)) continue;
    Subject subject({{"bytes", bytes}}, "start_python");
    measure_methods(name, subject, one_worker(), methods_of_python, options.pairs, report);
  }
  measure_jobs(options, report);
  measure_workers(options, can_account, report);
  measure_threads(options, report);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  using namespace cowshed::bench;
  if (const auto code = is_worker(argc, argv, {begin_task, add_up_task, stand_task})) return *code;
  const cowshed::Runtime runtime(argc, argv);
  return run_program(
      argc, argv,
      {.name = "start_methods",
       .question = "how long a worker takes to start, by every method and what the parent holds",
       .pairs = 31,
       .measure = measure,
       .make_work = make_work});
}
