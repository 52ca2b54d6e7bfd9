#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <stdexcept>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include <cowshed/cow/page_map.h>
#include <cowshed/share/arena.h>

#include "dataset.h"
#include "machine.h"
#include "program.h"
#include "residency.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

// What freeze() costs, what it achieves, and how fast one can ask whether anything was copied.
namespace cowshed::bench {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

Arena make_arena(std::size_t bytes) {
  auto arena = Arena::create({.name = "bench", .capacity = bytes + bytes / 4 + 64_MiB});
  if (!arena) throw std::runtime_error(arena.error().message);
  return std::move(*arena);
}

void freeze(Arena& arena, FreezeMode mode = FreezeMode::strict) {
  const auto frozen = arena.freeze(mode);
  if (!frozen) throw std::runtime_error(frozen.error().message);
}

// Every sample fills an arena of its own, freezes it, and checks the data.
class FreezeWork final : public SubjectWork {
 public:
  explicit FreezeWork(const json& configuration)
      : layout_(configuration["layout"]), bytes_(configuration["bytes"]) {
    pin_to_cpu(0);
  }

  json answer(const json&) override {
    Arena arena = make_arena(bytes_);
    const Dataset data(*arena.resource(), layout_, bytes_);
    const auto start = Clock::now();
    freeze(arena);
    const double ms = ms_since(start);
    data.check();
    const Residency found = residency(arena.base(), arena.stats().used);
    return {{"ms", ms}, {"full_ranges", found.full_ranges}, {"huge_ranges", found.huge_ranges}};
  }

 private:
  std::string layout_;
  std::size_t bytes_;
};

// The greatest part of freeze() alone: a memfd of as many bytes, collapsed as freeze() does it.
class CollapseWork final : public SubjectWork {
 public:
  explicit CollapseWork(const json& configuration) : bytes_(configuration["bytes"]) {
    pin_to_cpu(0);
  }

  json answer(const json&) override {
    const int fd = memfd_create("bench-collapse", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes_)) != 0) {
      throw std::runtime_error("memfd_create failed");
    }
    void* place = reinterpret_cast<void*>(kPlace);
    if (mmap(place, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0) !=
        place) {
      throw std::runtime_error("the memfd cannot be mapped");
    }
    std::memset(place, 1, bytes_);
    const auto start = Clock::now();
    for (std::size_t offset = 0; offset < bytes_; offset += kStep) {
      madvise(static_cast<std::byte*>(place) + offset, std::min(kStep, bytes_ - offset),
              MADV_COLLAPSE);
    }
    const double ms = ms_since(start);
    munmap(place, bytes_);
    close(fd);
    return {{"ms", ms}};
  }

 private:
  static constexpr std::uintptr_t kPlace = 0x300000000000;  // 2 MiB aligned
  static constexpr std::size_t kStep = 64_MiB;
  std::size_t bytes_;
};

class CopyWork final : public SubjectWork {
 public:
  explicit CopyWork(const json& configuration)
      : from_(configuration["bytes"].get<std::size_t>(), std::byte{1}), to_(from_) {
    pin_to_cpu(0);
  }

  json answer(const json&) override {
    const auto start = Clock::now();
    std::memcpy(to_.data(), from_.data(), from_.size());
    const double ms = ms_since(start);
    if (to_.back() != std::byte{1}) throw std::runtime_error("memcpy did not copy");
    return {{"ms", ms}};
  }

 private:
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
    // One page in each 2 MiB, so that both ways have something to find.
    for (std::size_t i = 0; i < written_; ++i) {
      *reinterpret_cast<volatile std::byte*>(arena_.base() + i * 2_MiB) = std::byte{1};
    }
    used_ = arena_.stats().used;
  }

  json answer(const json& question) override {
    const auto start = Clock::now();
    const std::size_t found =
        question["by"] == "pagemap" ? private_pages_by_pagemap(arena_.base(), used_) : by_scan();
    const double ms = ms_since(start);
    if (found != written_) {
      throw std::runtime_error(fmt::format("{} private pages found by {}, {} written", found,
                                           question["by"].get<std::string>(), written_));
    }
    return {{"ms", ms}};
  }

 private:
  std::size_t by_scan() {
    const auto begin = reinterpret_cast<std::uintptr_t>(arena_.base());
    cow::Mapping mapping;
    mapping.begin = begin;
    mapping.end = begin + used_;
    const auto pages = page_map_.anonymous_pages(mapping);
    if (!pages) throw std::runtime_error(pages.error().message);
    return pages->bytes() / 4_KiB;
  }

  Arena arena_;
  Dataset data_;
  std::size_t written_;
  std::size_t used_ = 0;
  cow::PageMap page_map_ = cow::PageMap::open(cow::ProcFiles(), getpid()).value();
};

std::unique_ptr<SubjectWork> make_work(const json& configuration) {
  const std::string work = configuration["work"];
  if (work == "freeze") return std::make_unique<FreezeWork>(configuration);
  if (work == "collapse") return std::make_unique<CollapseWork>(configuration);
  if (work == "copy") return std::make_unique<CopyWork>(configuration);
  return std::make_unique<AuditWork>(configuration);
}

void measure_freeze(std::size_t bytes, const std::string& layout, const Options& options,
                    Report& report) {
  const std::string group = fmt::format("freeze/{}", layout);
  Subject freezer(json{{"work", "freeze"}, {"layout", layout}, {"bytes", bytes}});
  Subject collapser(json{{"work", "collapse"}, {"bytes", bytes}});
  Subject copier(json{{"work", "copy"}, {"bytes", bytes}});
  double coverage = 1;
  const auto ask = [](Subject& subject) { return subject.ask({})["ms"].get<double>(); };
  const auto samples = interleave({{"freeze",
                                    [&] {
                                      const json answer = freezer.ask({});
                                      const auto full = answer["full_ranges"].get<double>();
                                      const auto huge = answer["huge_ranges"].get<double>();
                                      coverage = std::min(coverage, huge / full);
                                      return answer["ms"].get<double>();
                                    }},
                                   {"collapse alone", [&] { return ask(collapser); }},
                                   {"memcpy", [&] { return ask(copier); }},
                                   {"memcpy again", [&] { return ask(copier); }}},
                                  options.pairs);
  const double gibibytes = static_cast<double>(bytes) / static_cast<double>(1_GiB);
  for (const auto& [name, values] : samples) {
    report.figure(group, name, median(values) / gibibytes, "ms/GiB");
  }
  const auto& copies = samples_of(samples, "memcpy");
  report.ratio(group, "freeze to memcpy", compare(samples_of(samples, "freeze"), copies));
  report.ratio(group, "collapse alone to memcpy",
               compare(samples_of(samples, "collapse alone"), copies));
  report.goal(
      {fmt::format("{}: full 2 MiB ranges in huge pages", group), Goal::Bound::at_least, 99.9, "%"},
      coverage * 100);
  report.control(group, compare(samples_of(samples, "memcpy again"), copies));
}

void measure_audit(std::size_t bytes, const Options& options, Report& report) {
  Subject untouched(json{{"work", "audit"}, {"bytes", bytes}, {"written", 0}});
  const auto by = [](Subject& subject, const char* way) {
    return [&subject, way] { return subject.ask({{"by", way}})["ms"].get<double>(); };
  };
  {  // both must find what is there
    Subject written(json{{"work", "audit"}, {"bytes", 64_MiB}, {"written", 20}});
    by(written, "pagemap")();
    by(written, "scan")();
  }
  const auto samples = interleave({{"pagemap", by(untouched, "pagemap")},
                                   {"scan", by(untouched, "scan")},
                                   {"pagemap again", by(untouched, "pagemap")}},
                                  options.pairs);
  for (const auto& [name, values] : samples) report.figure("audit", name, median(values), "ms");
  const Comparison speed = compare(samples[0].values, samples[1].values);
  report.goal({"audit of " + size_name(bytes) + ": scan faster than pagemap", Goal::Bound::at_least,
               50, "times"},
              speed.ratio, speed.interval);
  report.control("audit", compare(samples[2].values, samples[0].values));
}

void measure(const Options& options, Report& report) {
  const std::size_t bytes = options.quick ? 16_MiB : 4_GiB;
  report.setting("freeze", "Arena::freeze() of " + size_name(bytes) +
                               ", strict; array: one of 64-bit words; objects: 48 bytes each");
  report.setting("collapse alone", "MADV_COLLAPSE of a memfd of as many bytes, 64 MiB a call");
  report.setting("memcpy", "of as many bytes between two blocks in 4 KiB pages, touched before");
  report.setting("pagemap", "pread of /proc/self/pagemap, 65536 entries a call");
  report.setting("scan", "cow::PageMap::anonymous_pages, PAGEMAP_SCAN of Linux 6.7");
  if (!options.quick) touch_memory(4 * bytes);
  for (const std::string layout : {"array", "objects"}) {
    if (options.wants("freeze/" + layout)) measure_freeze(bytes, layout, options, report);
  }
  if (options.wants("audit")) measure_audit(bytes, options, report);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "freeze",
       .question = "what freezing costs and achieves, and how fast an audit of it is",
       .pairs = 31,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_work});
}
