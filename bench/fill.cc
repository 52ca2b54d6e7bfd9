#include <fmt/format.h>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <cowshed/share/arena.h>

#include "fill_work.h"
#include "machine.h"
#include "program.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;

// The two ways to call an arena; each thread uses the same one.
class ArenaBackend {
 public:
  const Arena& arena() const { return arena_; }
  Arena& arena() { return arena_; }

 private:
  Arena arena_ = Arena::create({.name = "fill", .capacity = 4_GiB}).value();
};

struct Explicit : ArenaBackend {
  class Thread {
   public:
    explicit Thread(Explicit& backend) : arena_(backend.arena()) {}
    void* allocate(std::size_t size) { return arena_.allocate(size); }
    void deallocate(void* block, std::size_t size) { arena_.deallocate(block, size); }

   private:
    Arena& arena_;
  };
};

struct Pmr : ArenaBackend {
  class Thread {
   public:
    explicit Thread(const Pmr& backend) : resource_(backend.arena().resource()) {}
    void* allocate(std::size_t size) { return resource_->allocate(size); }
    void deallocate(void* block, std::size_t size) { resource_->deallocate(block, size); }

   private:
    std::pmr::memory_resource* resource_;
  };
};

std::unique_ptr<SubjectWork> make_work(const json& configuration) {
  const std::string variant = configuration["variant"];
  if (variant == "explicit") return std::make_unique<FillWork<Explicit>>(configuration);
  if (variant == "pmr") return std::make_unique<FillWork<Pmr>>(configuration);
  return std::make_unique<FillWork<Malloc>>(configuration);
}

struct Way {
  std::string name;
  std::string program;  // beside this one
  std::string variant;
  std::string provider;  // of malloc in it: part of a file's name
  std::vector<std::string> environment = {};
};

// Throws std::runtime_error when another library provides malloc there.
std::unique_ptr<Subject> start(const Way& way, json configuration) {
  configuration["variant"] = way.variant;
  auto subject = std::make_unique<Subject>(configuration, way.program, way.environment);
  const std::string provider = subject->facts()["malloc"];
  if (provider.find(way.provider) == std::string::npos)
    throw std::runtime_error(way.name + ": malloc is provided by " + provider);
  return subject;
}

// The last is the first again: a process like it, to tell noise from difference.
std::vector<Way> ways(const std::string& pattern) {
  const std::string jemalloc = "LD_PRELOAD=libjemalloc.so.2";
  std::vector<Way> result = {{"jemalloc", "", "malloc", "libjemalloc", {jemalloc}},
                             {"scope", "fill_scope", "scope", "fill_scope"},
                             {"explicit", "", "explicit", "libc.so"},
                             {"pmr", "", "pmr", "libc.so"},
                             {"glibc", "", "malloc", "libc.so"},
                             {"no scope", "fill_scope", "malloc", "fill_scope"}};
  if (pattern == "fill") {
    result.push_back(
        {"jemalloc, huge", "", "malloc", "libjemalloc", {jemalloc, "MALLOC_CONF=thp:always"}});
    result.push_back(
        {"glibc, huge", "", "malloc", "libc.so", {"GLIBC_TUNABLES=glibc.malloc.hugetlb=1"}});
  }
  result.push_back({"jemalloc again", "", "malloc", "libjemalloc", {jemalloc}});
  return result;
}

// Nanoseconds per operation, of a fresh process each time: filled memory must be new, and where
// blocks lie differs from process to process (ASLR), not from time to time.
std::vector<Samples> measure_ways(const std::vector<Way>& ways, const json& configuration,
                                  int pairs) {
  for (const Way& way : ways) start(way, configuration);  // checked before any is timed
  std::vector<Variant> variants;
  for (const Way& way : ways) {
    variants.push_back({way.name, [&way, &configuration] {
                          // Again and again: hosts take back what a guest does not use.
                          if (configuration["pattern"] == "fill")
                            touch_memory(4 * configuration["amount"].get<std::size_t>());
                          return start(way, configuration)->ask({})["ns"].get<double>();
                        }});
  }
  return interleave(variants, pairs);
}

void report_group(const std::string& group, const std::vector<Samples>& samples, Report& report) {
  for (const auto& [name, values] : samples) report.figure(group, name, median(values), "ns");
  const auto speed = [&](const std::string& ours, const std::string& rival) {
    return compare(samples_of(samples, rival), samples_of(samples, ours));  // of times: inverse
  };
  const auto judge = [&](const std::string& ours, const std::string& rival, double least) {
    const Comparison comparison = speed(ours, rival);
    report.goal(
        {group + ": " + ours + " as fast as " + rival, Goal::Bound::at_least, least, "", group},
        comparison.ratio, comparison.interval);
  };
  judge("scope", "jemalloc", 0.95);
  judge("scope", "glibc", 1);
  judge("explicit", "glibc", 1);
  if (group.starts_with("fill"))
    for (const std::string rival : {"jemalloc, huge", "glibc, huge"})
      report.ratio(group, "speed of scope to " + rival, speed("scope", rival));
  if (group.starts_with("churn")) {  // where a layer can be told from page faults
    const Comparison added = compare(samples_of(samples, "pmr"), samples_of(samples, "explicit"));
    report.goal({group + ": pmr adds to explicit", Goal::Bound::at_most, 3, "ns", group},
                added.difference, added.difference_interval);
  }
  report.control(group, speed("jemalloc again", "jemalloc"));
}

void measure(const Options& options, Report& report) {
  report.setting("jemalloc",
                 "malloc and free of the system's libjemalloc.so.2, preloaded, default options");
  report.setting("glibc", "malloc and free of glibc, default tunables");
  report.setting("huge", "jemalloc with MALLOC_CONF=thp:always, glibc with glibc.malloc.hugetlb=1");
  report.setting("scope", "malloc and free in an ArenaScope, cowshed::malloc linked");
  report.setting("no scope", "the same program outside a scope");
  report.setting("explicit", "Arena::allocate and deallocate, arena in 2 MiB pages (the default)");
  report.setting("pmr", "allocate and deallocate of Arena::resource()");
  report.setting("small, even", "16 to 128 bytes; 16 bytes to 4 KiB, log-uniform; seeded");
  report.setting("churn",
                 "free one of 4096 blocks at random, allocate another, write 8 bytes; the median "
                 "of 16 times 65536, in a fresh process each time");
  report.setting("fill", "allocate and write every byte, keep all, in a fresh process each time");
  if (!options.quick) touch_memory(2_GiB);
  for (const std::string pattern : {"churn", "fill"}) {
    const std::size_t amount = pattern == "churn" ? (options.quick ? 1U << 16U : 1U << 20U)
                                                  : (options.quick ? 4_MiB : 256_MiB);
    for (const std::string mix : {"small", "even"}) {
      for (const unsigned threads : {1U, 2U}) {
        const std::string group = fmt::format("{}/{}/{}", pattern, mix, threads);
        if (!options.wants(group)) continue;
        const json configuration = {
            {"pattern", pattern}, {"mix", mix}, {"threads", threads}, {"amount", amount}};
        report_group(group, measure_ways(ways(pattern), configuration, options.pairs), report);
      }
    }
  }
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(argc, argv,
                                     {.name = "fill",
                                      .question = "how fast an arena is filled, against malloc",
                                      .pairs = 8,
                                      .measure = cowshed::bench::measure,
                                      .make_work = cowshed::bench::make_work});
}
