#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <optional>

#include <cowshed/share/workers.h>

#include "holder.h"
#include "machine.h"
#include "program.h"
#include "repeat.h"
#include "starts.h"

// How long a worker takes to its first line, and to its end, by how it is started and by what its
// starter shares with it.
namespace cowshed::bench {
namespace {

using nlohmann::json;

constexpr int kRounds = 8;  // of fresh processes: two of the same differ by more than their samples

class StartWork final : public SubjectWork {
 public:
  explicit StartWork(const json& configuration) : method_(configuration["method"]) {
    if (configuration["memory"] != "none") holder_.emplace(configuration);
    for (int i = 0; i < 5; ++i) starter_.measure(method_);  // warm
  }

  json answer(const json&) override {
    const StartTimes times = starter_.measure(method_);
    return {{"begin_us", times.begin_us}, {"cycle_us", times.cycle_us}};
  }

 private:
  std::string method_;
  std::optional<Holder> holder_;
  Starter starter_;
};

std::unique_ptr<SubjectWork> make_work(const json& configuration) {
  return std::make_unique<StartWork>(configuration);
}

struct Method {
  std::string name;
  std::string rival;
  double most;  // times the rival
};

// A fresh process of each, in turns; both times of each sample.
void measure_method(const Method& method, const std::string& memory, std::size_t small,
                    std::size_t large, const Options& options, Report& report) {
  const auto none = json{{"memory", "none"}, {"method", method.rival}};
  const auto with = [&](std::size_t bytes) {
    json configuration = Holding{memory, "array", bytes}.configuration();
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
    for (std::size_t i = 0; i < all.size(); ++i)
      of_round.push_back({all[i].first, round_cycles[i]});
    append(cycles, of_round);
  }
  for (const auto& [what, samples] : {std::pair("begin", &begins), std::pair("cycle", &cycles)}) {
    const std::string group = fmt::format("{}/{}/{}", memory, method.name, what);
    for (const auto& [name, values] : *samples) report.figure(group, name, median(values), "us");
    const auto& rival = samples_of(*samples, method.rival);
    const Comparison cost = compare(samples_of(*samples, size_name(large)), rival);
    const Comparison flat =
        compare(samples_of(*samples, size_name(large)), samples_of(*samples, size_name(small)));
    if (memory == "arena" && std::strcmp(what, "begin") == 0) {
      report.goal({fmt::format("{}: {} to {}", group, size_name(large), method.rival),
                   Goal::Bound::at_most, method.most, "", group},
                  cost.ratio, cost.interval);
      report.goal({fmt::format("{}: {} to {}", group, size_name(large), size_name(small)),
                   Goal::Bound::at_most, 1.3, "", group},
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
  report.setting(
      "begin",
      fmt::format("from the call to the first line of the worker's function; each time is {}",
                  kRepeatSetting));
  report.setting("cycle", "from the call until the worker has been reaped and its value is there");
  report.setting("bare fork", "fork(), _exit(), waitpid() in a process without an arena");
  report.setting("posix_spawn", "of this program, whose main() writes the time to a pipe and ends");
  report.setting("heap", kHeapSetting);
  if (!options.quick) touch_memory(1_GiB);
  for (const std::string memory : {"arena", "heap"}) {
    for (const Method& method :
         {Method{"fork", "bare fork", 1.5}, Method{"forkserver", "bare fork", 2},
          Method{"spawn", "posix_spawn", 1.3}}) {
      if (options.wants(memory + "/" + method.name))
        measure_method(method, memory, small, large, options, report);
    }
  }
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  if (const auto code = cowshed::bench::is_worker(argc, argv)) return *code;
  const cowshed::Runtime runtime(argc, argv);
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "start",
       .question = "how long a worker takes to start by fork, spawn and forkserver",
       .pairs = 4,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_work});
}
