#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <fmt/format.h>
#include <functional>
#include <memory>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include "fault_counter.h"
#include "holder.h"
#include "machine.h"
#include "program.h"

// What it costs a forked child to read its parent's data, and to exist.
namespace cowshed::bench {
namespace {

using nlohmann::json;

constexpr std::size_t kWordsPerPage = 4_KiB / sizeof(std::uint64_t);
constexpr std::size_t kWordsPerLine = 8;
constexpr int kChildren = 5;  // of each kind, for what is counted

// What a child hands to its parent.
struct Costs {
  double us = 0;
  std::uint64_t sum = 0;
  std::uint64_t faults = 0;
  std::size_t private_bytes = 0;
  std::size_t page_table_bytes = 0;
};

class ReadWork final : public SubjectWork {
 public:
  explicit ReadWork(const json& configuration) : holder_(configuration) {
    pin_to_cpu(0);
    void* memory =
        mmap(nullptr, sizeof(Costs), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap");
    of_child_ = static_cast<Costs*>(memory);
  }
  ~ReadWork() override { munmap(of_child_, sizeof(Costs)); }

  json facts() const override { return holder_.facts(); }

  json answer(const json& question) override {
    const std::string what = question["do"];
    if (what == "read in parent") return {{"us", check(timed([&] { return read_all(); }), sum_)}};
    if (what == "read in child") {
      const Costs costs = in_child([&] { return timed([&] { return read_all(); }); });
      return {{"us", check(costs, sum_)}};
    }
    if (what == "touch in child") {
      const Costs costs = in_child([&] { return timed([&] { return touch_all(); }); });
      return {{"us", check(costs, touch_all())}};
    }
    if (what == "random in child") {
      const std::size_t reads = question["reads"];
      const Costs costs = in_child([&] {
        touch_all();
        return timed([&] { return read_random(reads); });
      });
      return {{"us", check(costs, read_random(reads))}};
    }
    const Costs costs = in_child([&] { return count(question.value("prefault", false)); });
    check(costs, touch_all());
    return {{"faults", costs.faults},
            {"private_bytes", costs.private_bytes},
            {"page_table_bytes", costs.page_table_bytes}};
  }

 private:
  template <class Body>
  static Costs timed(Body body) {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    const std::uint64_t sum = body();
    return {.us = std::chrono::duration<double, std::micro>(Clock::now() - start).count(),
            .sum = sum};
  }

  template <class Body>
  Costs in_child(Body body) {
    const pid_t pid = fork();
    if (pid == 0) {
      *of_child_ = {};  // its page is there before anything is measured
      try {
        *of_child_ = body();
      } catch (const std::exception& failure) {
        fmt::print(stderr, "child: {}\n", failure.what());
        _exit(1);
      }
      _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
      throw std::runtime_error("a child failed");
    }
    return *of_child_;
  }

  static double check(const Costs& costs, std::uint64_t expected) {
    if (costs.sum != expected) throw std::runtime_error("a child read something else");
    return costs.us;
  }

  std::uint64_t read_all() const { return holder_.data().sum(); }

  std::uint64_t touch_all() const {  // one word of each 4 KiB
    const auto words = holder_.data().words();
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < words.size(); i += kWordsPerPage) sum += words[i];
    return sum;
  }

  std::uint64_t read_random(std::size_t reads) const {
    const auto words = holder_.data().words();
    // glibc's block starts 16 bytes into a line; a line of the data is one of the machine.
    const std::size_t skip =
        (64 - reinterpret_cast<std::uintptr_t>(words.data()) % 64) % 64 / sizeof(std::uint64_t);
    const std::size_t lines = words.size() / kWordsPerLine - 1;
    std::uint64_t state = 88172645463325252U;
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < reads; ++i) {
      state ^= state << 13U;
      state ^= state >> 7U;
      state ^= state << 17U;
      const auto line = words.subspan(skip + state % lines * kWordsPerLine, kWordsPerLine);
      for (const std::uint64_t word : line) sum += word;
    }
    return sum;
  }

  // That a first touch counts.
  static void expect_fault(const FaultCounter& faults) {
    const std::uint64_t before = faults.count();
    void* page = mmap(nullptr, 4_KiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap");
    *static_cast<volatile std::byte*>(page) = std::byte{1};
    munmap(page, 4_KiB);
    if (faults.count() == before) throw std::runtime_error("page faults are not counted");
  }

  Costs count(bool prefault) const {
    Costs costs;
    if (prefault) {
      const auto done = holder_.arena().prefault();
      if (!done) throw std::runtime_error(done.error().message);
    }
    const FaultCounter faults;
    expect_fault(faults);
    const std::uint64_t before = faults.count();
    costs.sum = touch_all();
    costs.faults = faults.count() - before;
    const std::string smaps = "/proc/self/smaps_rollup";
    costs.private_bytes = proc_bytes(smaps, "Private_Clean") + proc_bytes(smaps, "Private_Dirty");
    costs.page_table_bytes = proc_bytes("/proc/self/status", "VmPTE");
    return costs;
  }

  Holder holder_;
  Costs* of_child_;
  std::uint64_t sum_ = holder_.data().sum();
};

std::unique_ptr<SubjectWork> make_work(const json& configuration) {
  return std::make_unique<ReadWork>(configuration);
}

std::unique_ptr<Subject> start(const Holding& holding) {
  return std::make_unique<Subject>(holding.configuration(), "", holding.environment());
}

Variant variant(const std::string& name, Subject& subject, const json& question) {
  return {name, [&subject, question] { return subject.ask(question)["us"].get<double>(); }};
}

void figures(const std::string& group, const std::vector<Samples>& samples, Report& report) {
  for (const auto& [name, values] : samples) {
    report.figure(group, name, median(values) / 1000, "ms");
  }
}

void measure_first_read(std::size_t bytes, const Options& options, Report& report) {
  const auto arena = start({"arena", "array", bytes});
  report.figure("first read", "share in 2 MiB pages",
                arena->facts()["huge_share"].get<double>() * 100, "%");
  const auto samples =
      interleave({variant("parent, warm", *arena, {{"do", "read in parent"}}),
                  variant("child, first", *arena, {{"do", "read in child"}}),
                  variant("parent, warm again", *arena, {{"do", "read in parent"}})},
                 options.pairs);
  figures("first read", samples, report);
  const Comparison first = compare(samples[1].values, samples[0].values);
  report.goal({"first read of " + size_name(bytes) + " in a child to a warm one in its parent",
               Goal::Bound::at_most, 1.3, "", "first read"},
              first.ratio, first.interval);
  report.control("first read", compare(samples[2].values, samples[0].values));
}

void measure_touch(std::size_t bytes, const Options& options, Report& report) {
  for (const std::string memory : {"arena", "heap", "huge heap"}) {
    const auto subject = start({memory, "array", bytes});
    const auto samples = interleave(
        {variant(memory + ", a word of each 4 KiB", *subject, {{"do", "touch in child"}})},
        options.pairs);
    figures("first touch", samples, report);
  }
}

void measure_random(std::size_t bytes, const Options& options, Report& report) {
  const auto arena = start({"arena", "array", bytes});
  const auto heap = start({"huge heap", "array", bytes});
  const json question = {{"do", "random in child"}, {"reads", options.quick ? 10'000 : 4'000'000}};
  const auto samples =
      interleave({variant("arena", *arena, question), variant("huge heap", *heap, question),
                  variant("arena again", *arena, question)},
                 options.pairs);
  report.figure("random reads", "huge heap, share in 2 MiB pages",
                heap->facts()["huge_share"].get<double>() * 100, "%");
  figures("random reads", samples, report);
  const Comparison comparison = compare(samples[0].values, samples[1].values);
  report.goal({"random 64-byte reads in a child: arena to huge heap", Goal::Bound::at_most, 1, "",
               "random reads"},
              comparison.ratio, comparison.interval);
  report.control("random reads", compare(samples[2].values, samples[0].values));
}

// Where ASLR puts the mappings decides how many page tables they share: 8 KiB more or less.
class FixedAddresses {
 public:
  FixedAddresses() : before_(personality(kAsk)) {
    personality(static_cast<unsigned long>(before_) | ADDR_NO_RANDOMIZE);
  }
  ~FixedAddresses() { personality(static_cast<unsigned long>(before_)); }
  FixedAddresses(const FixedAddresses&) = delete;
  FixedAddresses& operator=(const FixedAddresses&) = delete;

 private:
  static constexpr unsigned long kAsk = 0xffffffff;  // personality(2)
  int before_;
};

// The dearest of several children.
json count_costs(const Holding& holding, bool prefault = false) {
  const auto subject = start(holding);
  json dearest = json::object();
  for (int i = 0; i < kChildren; ++i) {
    const json costs = subject->ask({{"do", "count"}, {"prefault", prefault}});
    for (const auto& [name, value] : costs.items()) {
      dearest[name] = std::max(dearest.value(name, std::size_t{0}), value.get<std::size_t>());
    }
  }
  return dearest;
}

void count_all(std::size_t bytes, const Options&, Report& report) {
  const FixedAddresses of_the_subjects;
  const json empty = count_costs({"arena", "array", 0});
  const double gibibytes = static_cast<double>(bytes) / static_cast<double>(1_GiB);
  const double prefaulted =
      count_costs({"arena", "array", bytes}, true)["faults"].get<double>() / gibibytes;
  report.figure("child's cost", "arena, page faults per GiB after prefault()", prefaulted, "");
  report.goal(
      {"page faults of a first touch after prefault(), per GiB", Goal::Bound::at_most, 8, ""},
      prefaulted);
  for (const std::string memory : {"arena", "heap", "huge heap"}) {
    const json costs = count_costs({memory, "array", bytes});
    const auto more = [&](const char* name) {
      return costs[name].get<double>() - empty[name].get<double>();
    };
    const double faults = more("faults") / gibibytes;
    const double private_kib = more("private_bytes") / 1024;
    const double table_kib = more("page_table_bytes") / 1024 / gibibytes;
    report.figure("child's cost", memory + ", page faults per GiB", faults, "");
    report.figure("child's cost", memory + ", private memory more than empty", private_kib, "KiB");
    report.figure("child's cost", memory + ", page tables per GiB more than empty", table_kib,
                  "KiB");
    if (memory != "arena") continue;
    report.goal({"page faults of a first touch, per GiB", Goal::Bound::at_most, 514, ""}, faults);
    report.goal({"a child's private memory more than empty", Goal::Bound::at_most, 64, "KiB"},
                private_kib);
    report.goal({"a child's page tables per GiB more than empty", Goal::Bound::at_most, 4, "KiB"},
                table_kib);
  }
}

void measure(const Options& options, Report& report) {
  const std::size_t bytes = options.quick ? 32_MiB : 4_GiB;
  report.setting("arena", "one array of " + size_name(bytes) + ", frozen (strict)");
  report.setting("heap", kHeapSetting);
  report.setting("huge heap", kHugeHeapSetting);
  report.setting("page faults", FaultCounter::source());
  report.setting("private memory", "Private_Clean and Private_Dirty of smaps_rollup");
  report.setting("page tables", "VmPTE of /proc/self/status, without ASLR");
  if (!options.quick) touch_memory(1_GiB);
  using Part = void (*)(std::size_t, const Options&, Report&);
  const std::array<std::pair<const char*, Part>, 4> parts = {{{"first read", measure_first_read},
                                                              {"first touch", measure_touch},
                                                              {"random reads", measure_random},
                                                              {"child's cost", count_all}}};
  for (const auto& [name, part] : parts) {
    if (options.wants(name)) part(bytes, options, report);
  }
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "child_read",
       .question = "what it costs a forked child to read its parent's data, and to exist",
       .pairs = 31,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_work});
}
