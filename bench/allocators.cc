#include <fmt/format.h>
#include <memory>
#include <string>
#include <vector>

#include <cowshed/base/size_literals.h>
#include <cowshed/cow/meter.h>

#include "copies.h"
#include "fill_ways.h"
#include "got.h"
#include "program.h"

// Allocators of a parent: how fast they are, and what their children copy by freeing what they
// inherited.
namespace cowshed::bench {
namespace {

using nlohmann::json;

// The last is the first again: a process like it, to tell noise from difference.
const std::vector<FillWay>& ways() {
  static const std::vector<FillWay> all = {
      {"arena", "fill_scope", "scope", "fill_scope"},
      {"jemalloc", "fill_jemalloc", "malloc", "libjemalloc"},
      {"mimalloc", "fill_mimalloc", "malloc", "libmimalloc"},
      {"glibc", "fill", "malloc", "libc.so"},
      {"jemalloc, huge", "fill_jemalloc", "malloc", "libjemalloc", {"MALLOC_CONF=thp:always"}},
      {"mimalloc, huge", "fill_mimalloc", "malloc", "libmimalloc", {"MIMALLOC_LARGE_OS_PAGES=1"}},
      {"glibc, huge", "fill", "malloc", "libc.so", {"GLIBC_TUNABLES=glibc.malloc.hugetlb=1"}},
      {"arena again", "fill_scope", "scope", "fill_scope"}};
  return all;
}

void report_times(const std::string& group, const std::vector<Samples>& samples, Report& report) {
  const auto& arena = samples.front();
  for (std::size_t i = 0; i + 1 < samples.size(); ++i) {
    report.figure(group, samples[i].name, median(samples[i].values), "ns");
    if (i == 0) continue;
    report.ratio(group, samples[i].name + " to arena", compare(samples[i].values, arena.values));
  }
  report.control(group, compare(samples.back().values, arena.values));
}

Copies count_copies(Subject& subject, unsigned percent) {
  const json begun = subject.ask({{"do", "begin"}});
  cow::Meter meter = got(cow::Meter::begin(begun["pid"].get<pid_t>()));
  subject.ask({{"do", "free"}, {"percent", percent}});
  Copies copies;
  copies.add(meter);
  subject.ask({{"do", "check"}});
  subject.ask({{"do", "end"}});
  return copies;
}

double time_frees(Subject& subject, unsigned percent) {
  subject.ask({{"do", "begin"}});
  const double ns = subject.ask({{"do", "free"}, {"percent", percent}})["ns"];
  subject.ask({{"do", "end"}});
  return ns;
}

void measure_late_frees(const std::string& mix, std::size_t bytes, int pairs, Report& report) {
  std::vector<std::unique_ptr<Subject>> subjects;
  for (const FillWay& way : ways()) {
    subjects.push_back(
        start_way(way, {{"pattern", "late frees"}, {"mix", mix}, {"amount", bytes}}));
  }
  for (const unsigned percent : {1U, 10U, 100U}) {
    const std::string freed = fmt::format("{}, {} % freed", mix, percent);
    std::vector<Variant> variants;
    for (std::size_t i = 0; i < ways().size(); ++i) {
      Subject& subject = *subjects[i];
      const Copies copies = count_copies(subject, percent);  // and checks what is not freed
      variants.push_back(
          {ways()[i].name, [&subject, percent] { return time_frees(subject, percent); }});
      if (i + 1 == ways().size()) continue;
      report.figure("copied pages/" + freed, ways()[i].name, static_cast<double>(copies.pages), "");
      if (i > 0) continue;
      report.goal({freed + ": pages of the arena that a child copies", Goal::Bound::at_most, 0, ""},
                  static_cast<double>(copies.arena_pages));
    }
    report_times("late free/" + freed, interleave(variants, pairs), report);
  }
  for (std::size_t i = 0; i + 1 < ways().size(); ++i) {
    report.figure("pages with blocks/" + mix, ways()[i].name,
                  subjects[i]->facts()["pages"].get<double>(), "");
  }
}

void measure(const Options& options, Report& report) {
  report.setting("arena",
                 "malloc in an ArenaScope, cowshed::malloc linked; frozen (strict) for "
                 "the late frees");
  report.setting("jemalloc", "malloc and free of the system's libjemalloc.so.2, default options");
  report.setting("mimalloc", "malloc and free of the system's libmimalloc.so.2, default options");
  report.setting("glibc", "malloc and free of glibc, default tunables");
  report.setting("huge",
                 "jemalloc with MALLOC_CONF=thp:always, mimalloc with MIMALLOC_LARGE_OS_PAGES=1, "
                 "glibc with GLIBC_TUNABLES=glibc.malloc.hugetlb=1");
  report.setting("small, even", "16 to 128 bytes; 16 bytes to 4 KiB, log-uniform; seeded");
  report.setting("churn", "free one of 4096 blocks at random, allocate another, write 8 bytes");
  report.setting("fill", "allocate and write every byte, keep all, in a fresh process each time");
  report.setting("late free",
                 "free(3) of one of the parent's blocks, at random, in a forked child");
  report.setting("copied pages", "of such a child after its frees, by cowshed::cow::Meter");
  for (const std::string pattern : {"churn", "fill", "late frees"}) {
    for (const std::string mix : {"small", "even"}) {
      const std::string group = fmt::format("{}/{}", pattern, mix);
      if (!options.wants(group)) continue;
      if (pattern == "late frees") {
        measure_late_frees(mix, options.quick ? 1_MiB : 64_MiB, options.pairs, report);
        continue;
      }
      const std::size_t amount = pattern == "churn" ? (options.quick ? 1U << 16U : 1U << 20U)
                                                    : (options.quick ? 4_MiB : 256_MiB);
      const json configuration = {
          {"pattern", pattern}, {"mix", mix}, {"threads", 1}, {"amount", amount}};
      report_times(group, measure_ways(ways(), configuration, options.pairs), report);
    }
  }
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "allocators",
       .question = "how fast a parent's allocator is, and what children copy by freeing",
       .pairs = 31,
       .measure = cowshed::bench::measure,
       .make_work = nullptr});
}
