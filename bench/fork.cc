#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fmt/format.h>
#include <memory>
#include <stdexcept>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include "holder.h"
#include "machine.h"
#include "program.h"
#include "repeat.h"

// How long fork() takes a process by what it holds.  The call's time in the parent; the child ends
// at once.
namespace cowshed::bench {
namespace {

using nlohmann::json;

constexpr int kRounds = 2;  // of fresh processes

class ForkWork final : public SubjectWork {
 public:
  explicit ForkWork(const json& configuration) : holder_(configuration) {
    pin_to_cpu(0);
    for (int i = 0; i < 5; ++i) timed_fork();  // warm
  }

  json facts() const override { return holder_.facts(); }
  json answer(const json&) override { return {{"us", median(repeat(timed_fork))}}; }

 private:
  static double timed_fork() {
    using Clock = std::chrono::steady_clock;
    const auto before = Clock::now();
    const pid_t pid = fork();
    if (pid == 0) _exit(0);
    const auto after = Clock::now();
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
      throw std::system_error(errno, std::system_category(), "fork");
    if (status != 0) throw std::runtime_error("a child did not end as it should");
    return std::chrono::duration<double, std::micro>(after - before).count();
  }

  Holder holder_;
};

std::unique_ptr<SubjectWork> make_work(const json& configuration) {
  return std::make_unique<ForkWork>(configuration);
}

struct Held {
  std::string name;
  Holding holding;
};

struct Sizes {
  std::size_t smallest;
  std::size_t small;
  std::size_t middle;
  std::size_t largest;
};

// Whether a process may hold that much now; the report says so when not.
bool fits(const Holding& holding, Report& report) {
  const std::size_t available = proc_bytes("/proc/meminfo", "MemAvailable");
  const bool small_blocks = holding.memory != "arena" && holding.layout == "objects";
  // glibc's block for 48 bytes takes 64; besides a margin for everybody else.
  const std::size_t needed =
      (small_blocks ? holding.bytes / 3 * 4 : holding.bytes) + holding.bytes / 32 + 512_MiB;
  if (needed <= available) return true;
  report.setting("left out",
                 fmt::format("{} of {} in the {}: {} MiB of memory needed, {} MiB available",
                             size_name(holding.bytes), holding.layout, holding.memory,
                             needed >> 20U, available >> 20U));
  return false;
}

// Fresh processes, one of each, which fork in turns.
std::vector<Samples> measure_together(const std::vector<Held>& all, int pairs,
                                      std::vector<double>& huge_shares) {
  std::vector<std::unique_ptr<Subject>> subjects;
  std::vector<Variant> variants;
  for (const auto& [name, holding] : all) {
    subjects.push_back(
        std::make_unique<Subject>(holding.configuration(), "", holding.environment()));
    Subject* subject = subjects.back().get();
    huge_shares.push_back(subject->facts()["huge_share"]);
    variants.push_back({name, [subject] { return subject->ask({})["us"].get<double>(); }});
  }
  return interleave(variants, pairs);
}

// The same processes over several rounds, each fresh.
std::vector<Samples> measure_rounds(const std::vector<Held>& all, const Options& options,
                                    std::vector<double>& huge_shares) {
  std::vector<Samples> samples;
  for (int round = 0; round < (options.quick ? 1 : kRounds); ++round)
    append(samples, measure_together(all, options.pairs, huge_shares));
  return samples;
}

void judge_flatness(const std::string& group, const std::string& size, const std::string& smallest,
                    const std::vector<Samples>& samples, Report& report) {
  const Comparison flat = compare(samples_of(samples, size), samples_of(samples, smallest));
  report.goal(
      {fmt::format("{}: {} to {}", group, size, smallest), Goal::Bound::at_most, 1.3, "", group},
      flat.ratio, flat.interval);
}

// The largest apart from the others, with the smallest alone: memory is finite.
void measure_arena(const std::string& group, const std::string& layout, const Sizes& sizes,
                   const Options& options, Report& report) {
  const auto held = [&](std::size_t size) {
    return Held{size_name(size), {"arena", layout, size}};
  };
  const Holding empty = {"arena", layout, 0};
  std::vector<double> huge_shares;
  const auto samples = measure_rounds({{"empty", empty},
                                       held(sizes.smallest),
                                       held(sizes.small),
                                       held(sizes.middle),
                                       {"empty again", empty}},
                                      options, huge_shares);
  for (const auto& [name, values] : samples) report.figure(group, name, median(values), "us");
  const std::string smallest = size_name(sizes.smallest);
  const std::string middle = size_name(sizes.middle);
  judge_flatness(group, size_name(sizes.small), smallest, samples, report);
  judge_flatness(group, middle, smallest, samples, report);
  if (fits({"arena", layout, sizes.largest}, report)) {
    const auto apart =
        measure_rounds({held(sizes.smallest), held(sizes.largest)}, options, huge_shares);
    report.figure(group, size_name(sizes.largest), median(apart[1].values), "us");
    report.figure(group, fmt::format("{}, beside {}", smallest, size_name(sizes.largest)),
                  median(apart[0].values), "us");
    judge_flatness(group, size_name(sizes.largest), smallest, apart, report);
  }
  const Comparison cost = compare(samples_of(samples, middle), samples_of(samples, "empty"));
  report.goal({fmt::format("{}: {} to an empty arena", group, middle), Goal::Bound::at_most, 1.5,
               "", group},
              cost.ratio, cost.interval);
  std::erase(huge_shares, 0);  // the empty ones
  report.figure(group, "least share in 2 MiB pages",
                *std::min_element(huge_shares.begin(), huge_shares.end()) * 100, "%");
  report.control(group, compare(samples_of(samples, "empty again"), samples_of(samples, "empty")));
}

// One at a time, against an empty process: two such heaps may not fit.
void measure_heaps(const std::string& memory, const std::vector<std::size_t>& sizes,
                   const Options& options, Report& report) {
  const std::string group = memory + "/objects";
  if (!options.wants(group)) return;
  const Holding empty = {"arena", "objects", 0};
  std::vector<Samples> empties;  // of all sizes
  for (const std::size_t size : sizes) {
    const Holding holding = {memory, "objects", size};
    if (!fits(holding, report)) continue;
    std::vector<double> shares;
    const auto samples = measure_together(
        {{"empty", empty}, {"heap", holding}, {"empty again", empty}}, options.pairs, shares);
    const auto& heap = samples_of(samples, "heap");
    const auto& rival = samples_of(samples, "empty");
    const std::string name = size_name(size);
    report.figure(group, name, median(heap), "us");
    report.figure(group, name + ", share in 2 MiB pages", shares[1] * 100, "%");
    report.ratio(group, name + " to an empty arena", compare(heap, rival));
    append(empties, {{"empty", rival}, {"empty again", samples_of(samples, "empty again")}});
  }
  if (empties.empty()) return;
  report.control(group, compare(empties[1].values, empties[0].values));
}

void measure(const Options& options, Report& report) {
  const Sizes sizes =
      options.quick ? Sizes{4_MiB, 8_MiB, 16_MiB, 32_MiB} : Sizes{64_MiB, 512_MiB, 4_GiB, 12_GiB};
  report.setting("fork()", fmt::format("each time is {}", kRepeatSetting));
  report.setting("arena",
                 "frozen (strict); array: one of 64-bit words; objects: 48 bytes each, linked; all "
                 "sizes by turns, but the largest, apart from the others, by turns with the "
                 "smallest");
  report.setting("heap", kHeapSetting);
  report.setting("huge heap", kHugeHeapSetting);
  if (!options.quick) touch_memory(1_GiB);
  for (const std::string layout : {"array", "objects"}) {
    const std::string group = fmt::format("arena/{}", layout);
    if (options.wants(group)) measure_arena(group, layout, sizes, options, report);
  }
  for (const std::string memory : {"heap", "huge heap"}) {
    measure_heaps(memory, {sizes.smallest, sizes.small, sizes.middle, sizes.largest}, options,
                  report);
  }
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "fork",
       .question = "how long fork() takes with much data in a frozen arena, against none",
       .pairs = 8,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_work});
}
