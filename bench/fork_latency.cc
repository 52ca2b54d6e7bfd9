#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <memory>
#include <stdexcept>
#include <sys/wait.h>
#include <unistd.h>

#include "holder.h"
#include "machine.h"
#include "program.h"

// How long fork() takes a process by what it holds.  The call's time in the parent; the child ends
// at once.
namespace cowshed::bench {
namespace {

using nlohmann::json;

constexpr int kRounds = 3;  // of fresh processes

class ForkWork final : public SubjectWork {
 public:
  explicit ForkWork(const json& configuration) : holder_(configuration) {
    pin_to_cpu(0);
    for (int i = 0; i < 5; ++i) timed_fork();  // warm
  }

  json facts() const override { return holder_.facts(); }
  json answer(const json&) override { return {{"us", timed_fork()}}; }

 private:
  static double timed_fork() {
    using Clock = std::chrono::steady_clock;
    const auto before = Clock::now();
    const pid_t pid = fork();
    if (pid == 0) _exit(0);
    const auto after = Clock::now();
    if (pid < 0 || waitpid(pid, nullptr, 0) != pid) throw std::runtime_error("fork failed");
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

void measure_arena(const std::string& group, const std::string& layout,
                   const std::vector<std::size_t>& sizes, const Options& options, Report& report) {
  const std::string smallest = size_name(sizes.front());
  const std::string middle = size_name(sizes[2]);
  std::vector<Held> all = {{"empty", {"arena", layout, 0}}, {"empty again", {"arena", layout, 0}}};
  for (const std::size_t size : sizes) all.push_back({size_name(size), {"arena", layout, size}});
  std::vector<Samples> samples;
  double huge_share = 1;
  for (int round = 0; round < (options.quick ? 1 : kRounds); ++round) {
    std::vector<double> shares;
    append(samples, measure_together(all, options.pairs, shares));
    huge_share = std::min(huge_share, *std::min_element(shares.begin() + 2, shares.end()));
  }
  for (const auto& [name, values] : samples) report.figure(group, name, median(values), "us");
  report.figure(group, "least share in 2 MiB pages", huge_share * 100, "%");
  const auto against = [&](const std::string& a, const std::string& b) {
    return compare(samples_of(samples, a), samples_of(samples, b));
  };
  for (std::size_t i = 1; i < sizes.size(); ++i) {
    const Comparison flat = against(size_name(sizes[i]), smallest);
    report.goal({fmt::format("{}: {} to {}", group, size_name(sizes[i]), smallest),
                 Goal::Bound::at_most, 1.3, ""},
                flat.ratio, flat.interval);
  }
  const Comparison cost = against(middle, "empty");
  report.goal({group + ": " + middle + " to an empty arena", Goal::Bound::at_most, 1.5, ""},
              cost.ratio, cost.interval);
  report.control(group, against("empty again", "empty"));
}

// One at a time, against an empty process: two such heaps may not fit.
void measure_heap(const std::string& group, const Holding& holding, const Options& options,
                  Report& report) {
  std::vector<double> shares;
  const auto samples = measure_together(
      {{"heap", holding}, {"empty", {"arena", holding.layout, 0}}}, options.pairs, shares);
  const std::string name = size_name(holding.bytes);
  report.figure(group, name, median(samples[0].values), "us");
  report.figure(group, name + ", share in 2 MiB pages", shares[0] * 100, "%");
  report.ratio(group, name + " to an empty arena", compare(samples[0].values, samples[1].values));
}

void measure(const Options& options, Report& report) {
  const std::vector<std::size_t> sizes =
      options.quick ? std::vector<std::size_t>{4_MiB, 8_MiB, 16_MiB, 32_MiB}
                    : std::vector<std::size_t>{64_MiB, 512_MiB, 4_GiB, 12_GiB};
  report.setting("arena",
                 "frozen (strict); array: one of 64-bit words; objects: 48 bytes each, linked");
  report.setting("heap", kHeapSetting);
  report.setting("huge heap", kHugeHeapSetting);
  if (!options.quick) touch_memory(20_GiB);
  for (const std::string layout : {"array", "objects"}) {
    const std::string group = fmt::format("arena/{}", layout);
    if (options.wants(group)) measure_arena(group, layout, sizes, options, report);
  }
  for (const std::string memory : {"heap", "huge heap"}) {
    for (const std::string layout : {"array", "objects"}) {
      const std::string group = fmt::format("{}/{}", memory, layout);
      if (!options.wants(group)) continue;
      for (const std::size_t size : sizes) {
        measure_heap(group, {memory, layout, size}, options, report);
      }
    }
  }
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "fork_latency",
       .question = "how long fork() takes with much data in a frozen arena, against none",
       .pairs = 31,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_work});
}
