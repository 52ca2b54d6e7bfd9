#include <array>
#include <chrono>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <cowshed/base/size_literals.h>
#include <cowshed/cow/meter.h>

#include "copies.h"
#include "got.h"
#include "machine.h"
#include "program.h"
#include "sharing_entries.h"
#include "sharing_work.h"

// One dictionary for several workers, by the ways that there are to give it to them.
namespace cowshed::bench {
namespace {

using nlohmann::json;

constexpr std::size_t kPythonSlowness = 20;
constexpr std::uint64_t kUntimedPass = 999;
constexpr std::size_t kBriefUse = 2;      // look-ups an entry by each worker
constexpr std::size_t kMemoryTimes = 40;  // what all of this takes of a flat buffer's size

struct Way {
  std::string name;
  std::string program;  // beside this one
  json configuration;
  std::vector<std::string> environment = {};
  bool inherits = true;      // what it has, so that it can copy it
  std::size_t slowness = 1;  // so many fewer look-ups are timed
};

// The last is the first again: a process like it, to tell noise from difference.
const std::vector<Way>& ways() {
  static const std::vector<Way> all = {
      {"arena", "", {{"way", "arena"}}},
      {"shared_ptr", "", {{"way", "heap"}}},
      {"shared_ptr, huge pages", "", {{"way", "heap"}}, {"GLIBC_TUNABLES=glibc.malloc.hugetlb=1"}},
      {"Boost.Interprocess", "", {{"way", "boost"}}},
      {"flat buffer", "", {{"way", "buffer"}}},
      {"Python, forked", "sharing_python", {{"method", "fork"}}, {}, true, kPythonSlowness},
      {"Python, pickled", "sharing_python", {{"method", "spawn"}}, {}, false, kPythonSlowness},
      {"arena again", "", {{"way", "arena"}}}};
  return all;
}

// How much is done in a turn.
struct Load {
  std::size_t entries;
  std::size_t workers;
  std::size_t look_ups;  // by each worker, in a pass
  double use_s;          // that copies are counted over, by turns with the other ways
};

// One way's process with the dictionary, and whether it answers rightly.
class Holding {
 public:
  Holding(const Way& way, const Load& load, const Reference& reference)
      : name_(way.name),
        load_(load),
        reference_(reference),
        subject_(configuration(way, load), way.program, way.environment) {}

  // Seconds, until each has given its first answer.
  double begin() {
    const json answer = subject_.ask({{"do", "begin"}, {"workers", load_.workers}});
    pids_ = answer["pids"].get<std::vector<pid_t>>();
    return checked(answer, kFirstPass, 1);
  }
  double use(std::uint64_t pass, std::size_t look_ups) {
    return checked(subject_.ask({{"do", "use"}, {"pass", pass}, {"look_ups", look_ups}}), pass,
                   look_ups);
  }
  void end() { subject_.ask({{"do", "end"}}); }

  const std::vector<pid_t>& workers() const { return pids_; }
  // PSS of all of them and of the process that holds it.
  std::size_t memory() const {
    std::size_t sum = pss(subject_.facts()["pid"]);
    for (const pid_t pid : pids_) sum += pss(pid);
    return sum;
  }

 private:
  static json configuration(const Way& way, const Load& load) {
    json result = way.configuration;
    result["entries"] = load.entries;
    return result;
  }
  static std::size_t pss(pid_t pid) {
    return proc_bytes(fmt::format("/proc/{}/smaps_rollup", pid), "Pss");
  }

  double checked(const json& answer, std::uint64_t pass, std::size_t look_ups) const {
    const auto answers = answer["answers"].get<std::vector<std::uint64_t>>();
    if (answers.size() != load_.workers) throw std::runtime_error(name_ + ": a worker is missing");
    for (std::uint64_t i = 0; i < answers.size(); ++i) {
      if (answers[i] != reference_.answer({i, pass}, look_ups)) {
        throw std::runtime_error(
            fmt::format("{}: worker {} has answered wrongly in pass {}", name_, i, pass));
      }
    }
    return answer["ns"].get<double>() / 1e9;
  }

  std::string name_;
  Load load_;
  const Reference& reference_;
  Subject subject_;
  std::vector<pid_t> pids_;
};

struct Metric {
  const char* name;
  const char* unit;
};
constexpr std::array<Metric, 4> kMetrics = {{{"start", "ms"},
                                             {"look-ups, first", "million/s"},
                                             {"look-ups", "million/s"},
                                             {"memory", "MiB"}}};

// Workers from their start to their end.
std::array<double, kMetrics.size()> run_workers(Holding& holding, const Way& way,
                                                const Load& load) {
  const double start = holding.begin();
  const std::size_t look_ups = load.look_ups / way.slowness;
  const double millions = static_cast<double>(load.workers * look_ups) / 1e6;
  const double first = millions / holding.use(1, look_ups);
  if (way.slowness > 1) holding.use(kUntimedPass, load.look_ups - look_ups);
  const double later = millions / holding.use(2, look_ups);
  const double memory = static_cast<double>(holding.memory()) / static_cast<double>(1_MiB);
  holding.end();
  return {start * 1e3, first, later, memory};
}

// What the workers of a way copy, from its begin() to its end().
class CountedUse {
 public:
  CountedUse(std::string name, Holding& holding) : name_(std::move(name)), holding_(holding) {
    holding_.begin();
    for (const pid_t pid : holding_.workers()) meters_.push_back(got(cow::Meter::begin(pid)));
  }
  void use(std::size_t look_ups) {
    holding_.use(pass_++, look_ups);
    look_ups_ += look_ups;
  }
  void use_for(double seconds, std::size_t look_ups_at_a_time) {
    const auto begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < std::chrono::duration<double>(seconds)) {
      use(look_ups_at_a_time);
    }
  }
  const std::string& name() const { return name_; }
  std::size_t look_ups() const { return look_ups_; }  // by each worker
  Copies end() {
    Copies copies;
    for (cow::Meter& meter : meters_) copies.add(meter);
    holding_.end();
    return copies;
  }

 private:
  std::string name_;
  Holding& holding_;
  std::vector<cow::Meter> meters_;
  std::uint64_t pass_ = 3;  // after those that are timed
  std::size_t look_ups_ = 0;
};

// All ways by turns, so that they are as old at the end: the kernel moves pages together meanwhile.
void report_long_use(const std::string& size, const std::vector<std::unique_ptr<Holding>>& holdings,
                     const Load& load, Report& report) {
  constexpr int kTurns = 4;
  std::vector<std::unique_ptr<CountedUse>> counted;
  for (std::size_t i = 0; i + 1 < holdings.size(); ++i) {
    if (ways()[i].inherits) {
      counted.push_back(std::make_unique<CountedUse>(ways()[i].name, *holdings[i]));
    }
  }
  const double turn_s = load.use_s / kTurns / static_cast<double>(counted.size());
  for (int turn = 0; turn < kTurns; ++turn) {
    for (const auto& way : counted) way->use_for(turn_s, load.look_ups / kPythonSlowness);
  }
  for (const auto& way : counted) {
    report.figure("look-ups an entry, long use/" + size, way->name(),
                  static_cast<double>(way->look_ups()) / static_cast<double>(load.entries), "");
  }
  for (const auto& way : counted) {
    const Copies copies = way->end();
    report.figure("copied pages, long use/" + size, way->name(), static_cast<double>(copies.pages),
                  "");
    if (way == counted.front()) {
      report.goal({size + ": pages of the arena that workers copy in long use",
                   Goal::Bound::at_most, 0, ""},
                  static_cast<double>(copies.arena_pages));
    }
  }
}

void report_copies(const std::string& size, const std::vector<std::unique_ptr<Holding>>& holdings,
                   const Load& load, Report& report) {
  const std::string group = "copied pages/" + size;
  for (std::size_t i = 0; i + 1 < holdings.size(); ++i) {
    if (!ways()[i].inherits) continue;
    CountedUse counted(ways()[i].name, *holdings[i]);
    counted.use(kBriefUse * load.entries);
    const Copies copies = counted.end();
    report.figure(group, ways()[i].name, static_cast<double>(copies.pages), "");
    if (i == 0) {
      report.goal({size + ": pages of the arena that workers copy", Goal::Bound::at_most, 0, ""},
                  static_cast<double>(copies.arena_pages));
    }
  }
}

void measure_size(const std::string& size, const Load& load, int pairs, Report& report) {
  const Reference reference(load.entries);
  std::vector<std::unique_ptr<Holding>> holdings;
  std::array<std::vector<Samples>, kMetrics.size()> samples;
  std::vector<Variant> variants;
  for (const Way& way : ways()) {
    holdings.push_back(std::make_unique<Holding>(way, load, reference));
    for (auto& of_metric : samples) of_metric.push_back({way.name, {}});
  }
  for (std::size_t i = 0; i < holdings.size(); ++i) {
    run_workers(*holdings[i], ways()[i],
                load);  // warm, and its answers are checked before any is timed
    variants.push_back({ways()[i].name, [&, i] {
                          const auto values = run_workers(*holdings[i], ways()[i], load);
                          for (std::size_t m = 0; m < values.size(); ++m) {
                            samples[m][i].values.push_back(values[m]);
                          }
                          return values[0];
                        }});
  }
  interleave(variants, pairs);
  for (std::size_t m = 0; m < samples.size(); ++m) {
    const std::string group = fmt::format("{}/{}", kMetrics[m].name, size);
    const auto& arena = samples[m].front().values;
    for (std::size_t i = 0; i + 1 < ways().size(); ++i) {
      const auto& [name, values] = samples[m][i];
      report.figure(group, name, median(values), kMetrics[m].unit);
      if (i > 0) report.ratio(group, name + " to arena", compare(values, arena));
    }
    report.control(group, compare(samples[m].back().values, arena));
  }
  report_copies(size, holdings, load, report);
  if (load.use_s > 0) report_long_use(size, holdings, load, report);
}

void describe(double use_s, Report& report) {
  report.setting("dictionary",
                 "24-byte strings to records of a string, a vector of numbers and a number, 256 "
                 "bytes an entry as a flat buffer, after whose size the groups are named");
  report.setting("a look-up",
                 "make a random key, find it, copy the pointer to the record, read the record");
  report.setting("start", "of all workers, until each has given its first answer");
  report.setting("look-ups",
                 "of all workers together; first: those that begin with nothing mapped");
  report.setting("memory",
                 "PSS of the workers and the process that holds the dictionary, after it");
  report.setting("copied pages",
                 "of all workers after 2 look-ups an entry by each, by cowshed::cow::Meter; a "
                 "pickled dictionary is the worker's own from the start: see memory");
  report.setting("long use",
                 fmt::format("copied pages after {} s in which all ways are used by turns of the "
                             "same length, instead of ten minutes (--real-time: after ten), and "
                             "how often each worker looked an entry up by then",
                             use_s));
  report.setting("arena",
                 "std::unordered_map with ArenaAllocator, ImmortalPtr to the records, frozen "
                 "(strict), forked");
  report.setting("shared_ptr",
                 "std::unordered_map of std::make_shared on glibc's heap, forked; huge pages: "
                 "GLIBC_TUNABLES=glibc.malloc.hugetlb=1");
  report.setting(
      "Boost.Interprocess",
      "1.74, boost::unordered_map and offset_ptr in a managed_external_buffer over "
      "anonymous_shared_memory(), its way for forked processes; keys hashed as the rest");
  report.setting("flat buffer",
                 "a file of a hash table with offsets and the records, mmap(MAP_SHARED | "
                 "MAP_POPULATE, PROT_READ), inherited by fork; synced to the disk before");
  report.setting(
      "Python",
      "/usr/bin/python3, a dict to dataclass(slots=True) with array.array; pickled: "
      "multiprocessing.Process(args=...) by spawn; forked: inherited, after "
      "gc.freeze(); a twentieth of the look-ups are timed, the rest of the first is made "
      "between");
}

void measure(const Options& options, Report& report) {
  const std::vector<std::size_t> sizes = options.quick
                                             ? std::vector<std::size_t>{1_MiB, 2_MiB, 4_MiB}
                                             : std::vector<std::size_t>{4_MiB, 16_MiB, 64_MiB};
  const double use_s = options.quick ? 1 : options.real_time ? 600 : 60;
  describe(use_s, report);
  for (const std::size_t bytes : sizes) {
    const std::string size = size_name(bytes);
    if (!options.wants(size)) continue;
    if (!options.quick) touch_memory(kMemoryTimes * bytes);
    const std::size_t entries = bytes / kEntryBytes;
    const Load load = {.entries = entries,
                       .workers = options.quick ? 2U : 8U,
                       .look_ups = options.quick ? 1000U : 100'000U,
                       .use_s = bytes == sizes.back() ? use_s : 0};
    measure_size(size, load, options.pairs, report);
  }
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "sharing",
       .question = "what it takes to give one dictionary to 8 workers, and to use it",
       .pairs = 31,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_sharing_work});
}
