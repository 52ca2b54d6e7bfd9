#include <algorithm>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <stdexcept>
#include <sys/prctl.h>
#include <unistd.h>
#include <vector>

#include <cowshed/share/arena.h>

#include "dataset.h"
#include "machine.h"
#include "program.h"

// What freeze() costs, what it achieves, and how fast one can ask whether anything was copied.
namespace cowshed::bench {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

Arena make_arena(std::size_t bytes, bool huge_pages = true) {
  auto arena = Arena::create(
      {.name = "bench", .capacity = bytes + bytes / 4 + 64_MiB, .huge_pages = huge_pages});
  if (!arena) throw std::runtime_error(arena.error().message);
  return std::move(*arena);
}

void freeze(Arena& arena, FreezeMode mode = FreezeMode::strict) {
  const auto frozen = arena.freeze(mode);
  if (!frozen) throw std::runtime_error(frozen.error().message);
}

void collapse(Arena& arena) {
  const auto collapsed = arena.collapse();
  if (!collapsed) throw std::runtime_error(collapsed.error().message);
}

// Every sample fills an arena of its own, freezes it, and checks the data.  One that grew in 4 KiB
// pages is put into 2 MiB pages afterwards.
class FreezeWork final : public SubjectWork {
 public:
  explicit FreezeWork(const json& configuration)
      : layout_(configuration["layout"]),
        bytes_(configuration["bytes"]),
        huge_pages_(configuration["huge_pages"]) {
    pin_to_cpu(0);
  }

  json answer(const json&) override {
    Arena arena = make_arena(bytes_, huge_pages_);
    const auto before = Clock::now();
    const Dataset data(*arena.resource(), layout_, bytes_);
    const double fill_ms = ms_since(before);
    const auto start = Clock::now();
    freeze(arena);
    const double ms = ms_since(start);
    const auto collapsing = Clock::now();
    if (!huge_pages_) collapse(arena);
    const double collapse_ms = ms_since(collapsing);
    data.check();
    const double huge = static_cast<double>(arena.stats().huge_page_bytes);
    return {{"fill_ms", fill_ms},
            {"ms", ms},
            {"collapse_ms", collapse_ms},
            {"huge_share", std::min(1.0, huge / static_cast<double>(bytes_))}};
  }

 private:
  std::string layout_;
  std::size_t bytes_;
  bool huge_pages_;
};

class CopyWork final : public SubjectWork {
 public:
  explicit CopyWork(const json& configuration)
      : is_in_small_pages_(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0),
        from_(configuration["bytes"].get<std::size_t>(), std::byte{1}),
        to_(from_.size()) {
    pin_to_cpu(0);
    copy();
    if (to_ != from_) throw std::runtime_error("memcpy did not copy");
    if (!is_in_small_pages_ || proc_bytes("/proc/self/smaps_rollup", "AnonHugePages") != 0)
      throw std::runtime_error("memcpy's blocks are not in 4 KiB pages");
  }

  json answer(const json&) override {
    to_.back() = std::byte{0};
    const auto start = Clock::now();
    copy();
    const double ms = ms_since(start);
    if (to_.back() != std::byte{1}) throw std::runtime_error("memcpy did not copy");
    return {{"ms", ms}};
  }

 private:
  void copy() { std::memcpy(to_.data(), from_.data(), from_.size()); }

  bool is_in_small_pages_;
  std::vector<std::byte> from_;
  std::vector<std::byte> to_;
};

class AuditWork final : public SubjectWork {
 public:
  explicit AuditWork(const json& configuration)
      : arena_(make_arena(configuration["bytes"])),
        data_(*arena_.resource(), "array", configuration["bytes"]),
        written_(configuration["written"]) {
    pin_to_cpu(0);
    freeze(arena_, written_ > 0 ? FreezeMode::lenient : FreezeMode::strict);
    data_.check();
    for (std::size_t i = 0; i < written_; ++i)  // one page in each 2 MiB
      *reinterpret_cast<volatile std::byte*>(arena_.base() + i * 2_MiB) = std::byte{1};
  }

  json answer(const json&) override {
    const auto start = Clock::now();
    const auto found = arena_.private_bytes();
    const double ms = ms_since(start);
    if (!found) throw std::runtime_error(found.error().message);
    if (*found != written_ * 4_KiB) {
      throw std::runtime_error(
          fmt::format("{} private bytes found, {} pages written", *found, written_));
    }
    return {{"ms", ms}};
  }

 private:
  Arena arena_;
  Dataset data_;
  std::size_t written_;
};

std::unique_ptr<SubjectWork> make_work(const json& configuration) {
  const std::string work = configuration["work"];
  if (work == "freeze") return std::make_unique<FreezeWork>(configuration);
  if (work == "copy") return std::make_unique<CopyWork>(configuration);
  return std::make_unique<AuditWork>(configuration);
}

void measure_freeze(std::size_t bytes, const std::string& layout, const Options& options,
                    Report& report) {
  const std::string group = fmt::format("freeze/{}", layout);
  json configuration = {
      {"work", "freeze"}, {"layout", layout}, {"bytes", bytes}, {"huge_pages", true}};
  Subject huge(configuration);
  configuration["huge_pages"] = false;
  Subject small(configuration);
  Subject copier(json{{"work", "copy"}, {"bytes", bytes}});
  double coverage = 1;
  std::vector<double> fill_huge;
  std::vector<double> fill_small;
  std::vector<double> collapse_small;
  const auto sample = [&coverage](Subject& subject, std::vector<double>& fill) {
    json answer = subject.ask({});
    fill.push_back(answer["fill_ms"]);
    coverage = std::min(coverage, answer["huge_share"].get<double>());
    return answer;
  };
  const auto copy = [&] {
    copier.ask({});  // its caches are warm, whoever was before it
    return copier.ask({})["ms"].get<double>();
  };
  auto samples =
      interleave({{"freeze", [&] { return sample(huge, fill_huge)["ms"].get<double>(); }},
                  {"freeze, 4 KiB pages",
                   [&] {
                     const json answer = sample(small, fill_small);
                     collapse_small.push_back(answer["collapse_ms"]);
                     return answer["ms"].get<double>();
                   }},
                  {"memcpy", copy},
                  {"memcpy again", copy}},
                 options.pairs);
  samples.push_back({"collapse() of 4 KiB pages", collapse_small});
  samples.push_back({"filling before", fill_huge});
  samples.push_back({"filling before, 4 KiB pages", fill_small});
  const double gibibytes = static_cast<double>(bytes) / static_cast<double>(1_GiB);
  for (const auto& [name, values] : samples)
    report.figure(group, name, median(values) / gibibytes, "ms/GiB");
  const auto& copies = samples_of(samples, "memcpy");
  for (const std::string name : {"freeze", "freeze, 4 KiB pages", "collapse() of 4 KiB pages"}) {
    report.ratio(group, fmt::format("{} to memcpy", name),
                 compare(samples_of(samples, name), copies));
  }
  report.goal({fmt::format("{}: bytes in 2 MiB pages", group), Goal::Bound::at_least, 99.9, "%"},
              coverage * 100);
  report.control(group, compare(samples_of(samples, "memcpy again"), copies));
}

void measure_audit(std::size_t bytes, const Options& options, Report& report) {
  Subject(json{{"work", "audit"}, {"bytes", 64_MiB}, {"written", 20}}).ask({});  // it finds them
  Subject audit(json{{"work", "audit"}, {"bytes", bytes}, {"written", 0}});
  const auto by_audit = [&] { return audit.ask({})["ms"].get<double>(); };
  const auto samples = interleave({{"audit", by_audit}, {"audit again", by_audit}}, options.pairs);
  report.figure("audit", "of " + size_name(bytes), median(samples[0].values), "ms");
  report.control("audit", compare(samples[1].values, samples[0].values));
}

void measure(const Options& options, Report& report) {
  const std::size_t bytes = options.quick ? 16_MiB : 4_GiB;
  report.setting("freeze", "Arena::freeze() of " + size_name(bytes) +
                               ", strict; array: one of 64-bit words; objects: 48 bytes each");
  report.setting("4 KiB pages", "ArenaOptions::huge_pages = false, then Arena::collapse()");
  report.setting("memcpy", "of as many bytes between two blocks in 4 KiB pages, touched before");
  report.setting("audit", "Arena::private_bytes(), PAGEMAP_SCAN of Linux 6.7");
  if (!options.quick) touch_memory(4 * bytes);
  for (const std::string layout : {"array", "objects"})
    if (options.wants("freeze/" + layout)) measure_freeze(bytes, layout, options, report);
  if (options.wants("audit")) measure_audit(bytes, options, report);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "freeze",
       .question = "what freezing costs and achieves, and how fast an audit of it is",
       .pairs = 4,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_work});
}
