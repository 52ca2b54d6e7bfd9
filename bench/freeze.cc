#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <stdexcept>
#include <vector>

#include <cowshed/share/arena.h>

#include "family.h"
#include "machine.h"
#include "peer.h"
#include "subject.h"

// What freeze() costs and achieves, against a memcpy() of as many bytes, in ns per GiB.
namespace cowshed::bench {
namespace {

struct Linked {
  const Linked* previous;
  std::array<std::uint64_t, 5> values;
};

std::uint64_t fill(Arena& arena, const std::string& layout, std::size_t bytes, const Linked*& last,
                   std::span<std::uint64_t>& words) {
  if (layout == "array") {
    words = {static_cast<std::uint64_t*>(arena.allocate(bytes)), bytes / 8};
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = i;
    return words.size();
  }
  const std::size_t count = bytes / sizeof(Linked);
  for (std::size_t i = 0; i < count; ++i)
    last = new (arena.allocate(sizeof(Linked))) Linked{last, {i}};
  return count;
}

// layout: array, or objects of 48 bytes.  pages: 2M, 4K, or collapsed: from 4K into 2M afterwards.
double freeze_once(const std::string& layout, const std::string& pages, std::size_t bytes,
                   benchmark::State& state) {
  Arena arena = got(Arena::create(
      {.name = "freeze", .capacity = bytes + bytes / 4 + 64_MiB, .huge_pages = pages == "2M"}));
  const Linked* last = nullptr;
  std::span<std::uint64_t> words;
  const std::uint64_t count = fill(arena, layout, bytes, last, words);
  std::uint64_t before = now_ns();
  got(arena.freeze());
  if (pages == "collapsed") {
    before = now_ns();
    got(arena.collapse());
  }
  const auto took = static_cast<double>(now_ns() - before);
  std::uint64_t sum = 0;
  for (const std::uint64_t word : words) sum += word;
  for (const Linked* object = last; object != nullptr; object = object->previous)
    sum += object->values[0];
  if (sum != count * (count - 1) / 2) throw std::runtime_error("a freeze has changed the data");
  state.counters["huge_percent"] = std::min(
      100.0, 100 * static_cast<double>(arena.stats().huge_page_bytes) / static_cast<double>(bytes));
  return took / (static_cast<double>(bytes) / static_cast<double>(1_GiB));
}

const SubjectKind kCopy("memcpy", [](const Words& arguments) -> Answer {
  const bool huge = arguments.at(0) == "2M";
  const std::size_t bytes = std::stoull(arguments.at(1));
  if (!huge) use_small_pages();
  pin_to_cpu(0);
  const auto from = std::make_shared<std::vector<std::byte>>(bytes, std::byte{1});
  const auto to = std::make_shared<std::vector<std::byte>>(bytes);
  expect_pages(huge, 2 * bytes);
  return [from, to, bytes](const Words&) -> std::vector<double> {
    to->back() = std::byte{0};
    const std::uint64_t before = now_ns();
    std::memcpy(to->data(), from->data(), bytes);
    const auto took = static_cast<double>(now_ns() - before);
    if (*to != *from) throw std::runtime_error("memcpy did not copy");
    return {took / (static_cast<double>(bytes) / static_cast<double>(1_GiB))};
  };
});

// Arena::private_bytes(), of an arena in which the process has written to some pages.
double audit_once(std::size_t bytes) {
  constexpr std::size_t kWritten = 20;
  Arena arena = got(Arena::create({.name = "audit", .capacity = bytes + 64_MiB}));
  std::memset(arena.allocate(bytes), 1, bytes);
  got(arena.freeze(FreezeMode::lenient));
  for (std::size_t i = 0; i < kWritten; ++i)
    *reinterpret_cast<volatile std::byte*>(arena.base() + i * (bytes / kWritten)) = std::byte{2};
  const std::uint64_t before = now_ns();
  const std::size_t found = got(arena.private_bytes());
  const auto took = static_cast<double>(now_ns() - before);
  if (found < kWritten * 4096 || found > kWritten * 2_MiB)
    throw std::runtime_error(fmt::format("{} private bytes after {} writes", found, kWritten));
  return took / (static_cast<double>(bytes) / static_cast<double>(1_GiB));
}

}  // namespace

void add_freeze() {
  const std::size_t bytes = is_quick() ? 64_MiB : 512_MiB;
  for (const std::string layout : {"array", "objects"})
    for (const std::string pages : {"2M", "4K", "collapsed"})
      add("freeze/" + layout + "/" + pages,
          [=](benchmark::State& state) { return freeze_once(layout, pages, bytes, state); });
  for (const std::string pages : {"2M", "4K"}) {
    const Words environment =
        pages == "2M" ? Words{"GLIBC_TUNABLES=glibc.malloc.hugetlb=1"} : Words{};
    add("freeze/memcpy/" + pages, [=](benchmark::State&) {
      return Subject({"memcpy", pages, std::to_string(bytes)}, environment).ask().front();
    });
  }
  add("freeze/audit/2M", [=](benchmark::State&) { return audit_once(bytes); });
}

}  // namespace cowshed::bench
