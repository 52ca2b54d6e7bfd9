#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <fmt/format.h>
#include <memory>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <vector>

#include "machine.h"
#include "observer.h"
#include "peer.h"
#include "program.h"
#include "statistics.h"

// What it costs to be measured: for each copied page, for a process beside it, and for one that
// does not fault.
namespace cowshed::bench {
namespace {

using nlohmann::json;

constexpr std::size_t kPage = 4096;
constexpr int kTimes = 3;                      // within one sample, of which the median counts
constexpr std::uint64_t kFaultsOfAFork = 256;  // of the child's own, at its start and its end

std::byte* pages(std::size_t count) {
  void* memory =
      mmap(nullptr, count * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap");
  return static_cast<std::byte*>(memory);
}

void write_each(std::byte* memory, std::size_t count, std::size_t stride = 1) {
  for (std::size_t i = 0; i < count; ++i)
    *reinterpret_cast<volatile std::byte*>(memory + i * stride * kPage) = std::byte{1};
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

// A forked child writes to each page that it shares.
class Copies final : public Work {
 public:
  Copies(std::size_t count, Where where)
      : count_(count),
        stride_(where == Where::one_mapping ? 1 : 2),
        memory_(pages(count * stride_)),
        took_(static_cast<double*>(shared_memory(sizeof *took_))) {
    write_each(memory_, count, stride_);
    if (where == Where::one_mapping) return;
    for (std::size_t i = 0; i < count; ++i)
      if (mprotect(memory_ + (2 * i + 1) * kPage, kPage, PROT_READ) != 0)
        throw std::system_error(errno, std::system_category(), "mprotect");
  }

 private:
  double once() override {
    const pid_t pid = fork();
    if (pid == 0) {
      pin_to_cpu(0);
      const std::uint64_t before = now_ns();
      write_each(memory_, count_, stride_);
      *took_ = static_cast<double>(now_ns() - before) / static_cast<double>(count_);
      _exit(0);
    }
    int status = -1;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
      throw std::system_error(errno, std::system_category(), "fork");
    return *took_;
  }

  std::size_t count_;
  std::size_t stride_;  // in pages
  std::byte* memory_;
  double* took_;  // ns a page, shared with the child
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
  if (work == "copies") return std::make_unique<Copies>(count, Where::one_mapping);
  if (work == "many mappings") return std::make_unique<Copies>(count, Where::one_mapping_each);
  if (work == "touches") return std::make_unique<Touches>(count);
  return std::make_unique<Computes>(count);
}

void check_count(const ObserverKind& kind, std::uint64_t count, std::uint64_t counted) {
  if (!kind.counts) return;
  if (count < counted || count > counted + kTimes * kFaultsOfAFork)
    throw std::runtime_error(fmt::format("{} counted {} of {} copies", kind.name, count, counted));
}

// `asked` is measured while `watched` is watched: itself, or a process that sleeps.
std::vector<Samples> measure_under(const std::vector<ObserverKind>& kinds, Subject& asked,
                                   const Subject& watched, std::uint64_t counted, int pairs) {
  std::vector<Variant> variants;
  const auto add = [&](const ObserverKind& kind, const std::string& name) {
    variants.push_back({name, [&, kind] {
                          const auto observer = kind.watch(watched.facts()["pid"]);
                          const double ns = asked.ask({})["ns"];
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

// What each observer adds; and the goal, against the empty programs.
void report_added(const std::string& group, double most, const std::vector<ObserverKind>& kinds,
                  const std::vector<Samples>& samples, Report& report) {
  print_figures(group, samples, report);
  for (const ObserverKind& kind : kinds) {
    if (kind.name == "none") continue;
    report.figure(group, kind.name + " adds", median(added(samples, kind.name)), "ns");
  }
  const Comparison comparison =
      compare_differences(added(samples, "cowtop"), added(samples, "empty programs"));
  report.goal({group + ": added by cowtop to added by the empty programs", Goal::Bound::at_most,
               most, "", group},
              comparison.ratio, comparison.interval);
}

void measure_copies(const std::vector<ObserverKind>& kinds, const Options& options,
                    Report& report) {
  const std::size_t count = options.quick ? 1024 : 16384;
  Subject subject(json{{"work", "copies"}, {"count", count}});
  report_added("copy", 1.5, kinds,
               measure_under(kinds, subject, subject, count * kTimes, options.pairs), report);
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

void measure_bystander(const std::vector<ObserverKind>& kinds, const Options& options,
                       Report& report) {
  Subject asleep(json{{"work", "computes"}, {"count", 1}});
  Subject bystander(json{{"work", "touches"}, {"count", options.quick ? 1024 : 16384}});
  report_added("bystander", 1.1, kinds, measure_under(kinds, bystander, asleep, 0, options.pairs),
               report);
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
  if (!options.quick) touch_memory(1UL << 30);
  if (options.wants("copy")) measure_copies(kinds, options, report);
  if (options.wants("many mappings")) measure_many_mappings(kinds, options, report);
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
       .pairs = 6,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_work});
}
