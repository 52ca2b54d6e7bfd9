#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <fmt/format.h>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <vector>

#include "accounting.h"
#include "machine.h"
#include "observer.h"
#include "peer.h"
#include "program.h"
#include "statistics.h"
#include "tool.h"

// What it costs to be measured: for each copied page, for a process beside it, and for one that
// does not fault.
namespace cowshed::bench {
namespace {

using nlohmann::json;

constexpr std::size_t kPage = 4096;
constexpr int kTimes = 3;                      // within one sample, of which the median counts
constexpr std::size_t kMostChildren = 2;       // that copy at the same time
constexpr std::uint64_t kFaultsOfAFork = 256;  // of the child's own, at its start and its end

std::byte* pages(std::size_t count) {
  void* memory =
      mmap(nullptr, count * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap");
  return static_cast<std::byte*>(memory);
}

void write_each(std::byte* memory, std::size_t count, std::size_t stride = 1) {
  for (std::size_t i = 0; i < count; ++i) {
    *reinterpret_cast<volatile std::byte*>(memory + i * stride * kPage) = std::byte{1};
  }
}

class Work : public SubjectWork {
 public:
  Work() { prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); }
  json facts() const override { return {{"pid", getpid()}}; }
  json answer(const json&) final {
    std::vector<double> times(kTimes);
    for (double& time : times) time = once();
    return nanoseconds(median(times));
  }

 protected:
  virtual double once() = 0;
};

enum class Where : std::uint8_t { one_mapping, one_mapping_each };

// Forked children, at the same time and each on a CPU of its own, write to each page that they
// share.
class Copies final : public Work {
 public:
  Copies(std::size_t count, Where where, std::size_t children)
      : count_(count),
        stride_(where == Where::one_mapping ? 1 : 2),
        children_(children),
        memory_(pages(count * stride_)),
        together_(new(shared_memory(kPage)) Together) {
    write_each(memory_, count, stride_);
    if (where == Where::one_mapping) return;
    for (std::size_t i = 0; i < count; ++i) {
      if (mprotect(memory_ + (2 * i + 1) * kPage, kPage, PROT_READ) != 0) {
        throw std::system_error(errno, std::system_category(), "mprotect");
      }
    }
  }

 private:
  struct Together {
    std::atomic<std::size_t> ready;
    std::array<double, kMostChildren> took;  // ns a page
  };

  double once() override {
    together_->ready = 0;
    std::array<pid_t, kMostChildren> pids{};
    for (std::size_t i = 0; i < children_; ++i) {
      pids.at(i) = fork();
      if (pids.at(i) == 0) copy_all(i);
    }
    double sum = 0;
    for (std::size_t i = 0; i < children_; ++i) {
      int status = -1;
      if (pids.at(i) < 0 || waitpid(pids.at(i), &status, 0) != pids.at(i) || status != 0) {
        throw std::system_error(errno, std::system_category(), "fork");
      }
      sum += together_->took.at(i);
    }
    return sum / static_cast<double>(children_);
  }

  [[noreturn]] void copy_all(std::size_t number) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // who waits for the others would wait for ever
    pin_to_cpu(number);
    ++together_->ready;
    while (together_->ready < children_) {
    }
    const std::uint64_t before = now_ns();
    write_each(memory_, count_, stride_);
    together_->took.at(number) =
        static_cast<double>(now_ns() - before) / static_cast<double>(count_);
    _exit(0);
  }

  std::size_t count_;
  std::size_t stride_;  // in pages
  std::size_t children_;
  std::byte* memory_;
  Together* together_;  // with the children
};

// First touches, by a process that nobody has asked about.
class Touches final : public Work {
 public:
  explicit Touches(std::size_t count) : count_(count) { pin_to_cpu(0); }

 private:
  double once() override {
    std::byte* memory = pages(count_);
    const std::uint64_t before = now_ns();
    write_each(memory, count_);
    const auto took = static_cast<double>(now_ns() - before);
    munmap(memory, count_ * kPage);
    return took / static_cast<double>(count_);
  }

  std::size_t count_;
};

// Reads and writes of memory that is its own already.
class Computes final : public Work {
 public:
  explicit Computes(std::size_t count) : count_(count), memory_(pages(kOwn)) {
    pin_to_cpu(0);
    write_each(memory_, kOwn);
  }

 private:
  static constexpr std::size_t kOwn = 64;

  double once() override {
    const std::uint64_t before = now_ns();
    for (std::size_t i = 0; i < count_; ++i) write_each(memory_, kOwn);
    return static_cast<double>(now_ns() - before) / static_cast<double>(count_);
  }

  std::size_t count_;
  std::byte* memory_;
};

std::unique_ptr<SubjectWork> make_work(const json& configuration) {
  const std::size_t count = configuration["count"];
  const std::string work = configuration["work"];
  if (work == "copies") {
    return std::make_unique<Copies>(count, Where::one_mapping,
                                    configuration.value("children", std::size_t{1}));
  }
  if (work == "many mappings") return std::make_unique<Copies>(count, Where::one_mapping_each, 1);
  if (work == "touches") return std::make_unique<Touches>(count);
  return std::make_unique<Computes>(count);
}

void check_count(const ObserverKind& kind, std::uint64_t count, std::uint64_t counted) {
  if (static_cast<double>(count) < kind.counts * static_cast<double>(counted)) {
    throw std::runtime_error(fmt::format("{} counted {} of {} faults", kind.name, count, counted));
  }
  if (kind.name == "cowtop" && count > counted + kTimes * kMostChildren * kFaultsOfAFork) {
    throw std::runtime_error(fmt::format("cowtop counted {} of {} copies", count, counted));
  }
}

// By observer, one for each turn, in ns: CPU time of its own process during the measured work.
using OwnCpu = std::map<std::string, std::vector<double>>;

// `asked` is measured while `watched` is watched: itself, or a process that sleeps.
std::vector<Samples> measure_under(const std::vector<ObserverKind>& kinds, Subject& asked,
                                   const Subject& watched, std::uint64_t counted, int pairs,
                                   OwnCpu* own_cpu = nullptr) {
  std::vector<Variant> variants;
  const auto add = [&](const ObserverKind& kind, const std::string& name) {
    variants.push_back({name, [&, kind] {
                          const auto observer = kind.watch(watched.facts()["pid"]);
                          const pid_t own = own_cpu != nullptr ? observer->pid() : 0;
                          const double before = own != 0 ? cpu_ns(own) : 0;
                          const double ns = asked.ask({})["ns"];
                          if (own != 0) (*own_cpu)[kind.name].push_back(cpu_ns(own) - before);
                          check_count(kind, observer->stop(), counted);
                          return ns;
                        }});
  };
  for (const ObserverKind& kind : kinds) add(kind, kind.name);
  add(kinds.front(), "none again");
  return interleave(variants, pairs);
}

void print_figures(const std::string& group, const std::vector<Samples>& samples, Report& report) {
  for (const auto& [name, values] : samples) report.figure(group, name, median(values), "ns");
  report.control(group, compare(samples_of(samples, "none again"), samples_of(samples, "none")));
}

// What each adds to a fault, by turn.
std::vector<double> added(const std::vector<Samples>& samples, const std::string& name) {
  std::vector<double> result = samples_of(samples, name);
  const auto& none = samples_of(samples, "none");
  const auto& again = samples_of(samples, "none again");
  for (std::size_t i = 0; i < result.size(); ++i) result[i] -= (none[i] + again[i]) / 2;
  return result;
}

void measure_copies(const std::vector<ObserverKind>& kinds, const std::string& group,
                    std::size_t children, const Options& options, Report& report) {
  const std::size_t count = options.quick ? 1024 : 16384;
  Subject subject(json{{"work", "copies"}, {"count", count}, {"children", children}});
  const std::size_t copies = count * kTimes * children;
  OwnCpu own_cpu;
  const auto samples = measure_under(kinds, subject, subject, copies, options.pairs, &own_cpu);
  print_figures(group, samples, report);
  const auto ours = added(samples, "cowtop");
  for (const ObserverKind& kind : kinds) {
    if (kind.name == "none") continue;
    report.figure(group, kind.name + " adds", median(added(samples, kind.name)), "ns");
    const Comparison comparison = compare_differences(ours, added(samples, kind.name));
    const std::string what = fmt::format("{}: added by cowtop to added by {}", group, kind.name);
    if (kind.name == "bpftrace") {
      report.goal({what, Goal::Bound::at_most, 0.5, "", group}, comparison.ratio,
                  comparison.interval);
    } else if (kind.name == "empty programs") {
      report.goal({what, Goal::Bound::at_most, 1.5, "", group}, comparison.ratio,
                  comparison.interval);
    } else if (kind.name != "cowtop") {
      report.ratio(group, what, comparison);
    }
  }
  for (const ObserverKind& kind : kinds) {
    if (const auto found = own_cpu.find(kind.name); found != own_cpu.end()) {
      report.figure(group, kind.name + ", its own CPU",
                    median(found->second) / static_cast<double>(copies), "ns");
    }
  }
}

void measure_many_mappings(const std::vector<ObserverKind>& kinds, const Options& options,
                           Report& report) {
  const std::size_t count = options.quick ? 1024 : 16384;
  Subject subject(json{{"work", "many mappings"}, {"count", count}});
  const auto samples = measure_under(kinds, subject, subject, count * kTimes, options.pairs);
  print_figures("many mappings", samples, report);
  report.figure("many mappings", "cowtop adds", median(added(samples, "cowtop")), "ns");
  report.ratio("many mappings", "a copy under cowtop to one unwatched",
               compare(samples_of(samples, "cowtop"), samples_of(samples, "none")));
}

// Whether a copy costs more where there are more of them.
void measure_counts(const std::vector<ObserverKind>& kinds, const Options& options,
                    Report& report) {
  for (const std::size_t count : options.quick
                                     ? std::vector<std::size_t>{64, 256}
                                     : std::vector<std::size_t>{1024, 4096, 16384, 65536}) {
    Subject subject(json{{"work", "copies"}, {"count", count}});
    const auto samples = measure_under(kinds, subject, subject, count * kTimes, options.pairs);
    const std::string group = fmt::format("count/{} pages", count);
    print_figures(group, samples, report);
    report.ratio(group, "a copy under cowtop to one unwatched",
                 compare(samples_of(samples, "cowtop"), samples_of(samples, "none")));
  }
}

void measure_bystander(const std::vector<ObserverKind>& kinds, const Options& options,
                       Report& report) {
  Subject asleep(json{{"work", "computes"}, {"count", 1}});
  Subject bystander(json{{"work", "touches"}, {"count", options.quick ? 1024 : 16384}});
  const auto samples = measure_under(kinds, bystander, asleep, 0, options.pairs);
  print_figures("bystander", samples, report);
  const Comparison to_empty =
      compare(samples_of(samples, "cowtop"), samples_of(samples, "empty programs"));
  report.ratio("bystander", "a first touch under cowtop to one under the empty programs", to_empty);
  const auto ours = added(samples, "cowtop");
  for (const ObserverKind& kind : kinds) {
    if (kind.name == "none") continue;
    report.figure("bystander", kind.name + " adds", median(added(samples, kind.name)), "ns");
    if (kind.name == "cowtop") continue;
    const Comparison comparison = compare_differences(ours, added(samples, kind.name));
    if (kind.name == "empty programs") {
      report.goal({"bystander: added by cowtop to added by the empty programs",
                   Goal::Bound::at_most, 1.1, "", "bystander"},
                  comparison.ratio, comparison.interval);
    } else {
      report.ratio("bystander", "bystander: added by cowtop to added by " + kind.name, comparison);
    }
  }
}

void measure_quiet(const std::vector<ObserverKind>& kinds, const Options& options, Report& report) {
  Subject subject(json{{"work", "computes"}, {"count", options.quick ? 10'000 : 1'000'000}});
  const auto samples = measure_under(kinds, subject, subject, 0, options.pairs);
  print_figures("no faults", samples, report);
  const Comparison comparison = compare(samples_of(samples, "cowtop"), samples_of(samples, "none"));
  report.goal({"no faults: under cowtop to unwatched", Goal::Bound::at_most, 1.05, "", "no faults"},
              comparison.ratio, comparison.interval);
}

void measure(const Options& options, Report& report) {
  report.setting("copy",
                 "a forked child writes to 16,384 pages of 4 KiB that it shares; ns a page; who "
                 "observes runs on any CPU");
  report.setting("copy, 2 CPUs", "two such children at the same time, each on its own CPU");
  report.setting("count", "the same with fewer and more pages; ns a page");
  report.setting(
      "many mappings",
      "the same where each page lies in a mapping of its own, of 32,768 in all; ns a page");
  report.setting(
      "bystander",
      "another process than the watched one, which sleeps, touches new pages; ns a page");
  report.setting("no faults", "the watched process writes to 64 pages of its own; ns a round");
  if (const std::string reason = cannot_observe(); !reason.empty()) {
    report.setting("not measured", reason);
    return;
  }
  const auto kinds = observers();
  for (const ObserverKind& kind : kinds) report.setting(kind.name, kind.setting);
  report.setting(
      "its own CPU",
      "CPU time, user and system, of the observer's own process from the question to the "
      "watched one to its answer; ns a copied page. Not in it: its start (bpftrace "
      "compiles), its end (perf record writes the rest of its file, and goes through all "
      "of it), and what runs in the watched process, which is in what it adds. smaps "
      "polling takes it by the time, not by the copy; cowtop takes more in its first "
      "seconds, as here, than later (own_cost). empty programs and taskstats have no "
      "process that works meanwhile");
  if (const std::string reason = cannot_account(); !reason.empty()) {
    report.setting("taskstats", "not measured: " + reason);
  }
  for (const std::string rival : {"bpftrace", "perf stat"}) {
    if (std::none_of(kinds.begin(), kinds.end(),
                     [&](const ObserverKind& kind) { return kind.name == rival; })) {
      report.setting(rival, "not installed: not measured");
    }
  }
  if (!options.quick) touch_memory(1UL << 30);
  if (options.wants("copy")) measure_copies(kinds, "copy", 1, options, report);
  if (options.wants("copy, 2 CPUs")) measure_copies(kinds, "copy, 2 CPUs", 2, options, report);
  const auto is_of_few = [](const ObserverKind& kind) {
    return kind.name == "none" || kind.name == "cowtop";
  };
  std::vector<ObserverKind> few;
  std::copy_if(kinds.begin(), kinds.end(), std::back_inserter(few), is_of_few);
  if (options.wants("count")) measure_counts(few, options, report);
  if (options.wants("many mappings")) measure_many_mappings(few, options, report);
  if (options.wants("bystander")) measure_bystander(kinds, options, report);
  if (options.wants("no faults")) measure_quiet(kinds, options, report);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "measuring",
       .question = "what counting copies costs those who are counted",
       .pairs = 31,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_work});
}
