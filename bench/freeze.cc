#include <array>
#include <cstring>
#include <sys/mman.h>

#include <cowshed/share/arena.h>

#include "family.h"

// What freeze() costs and achieves, against a memcpy() of as many bytes, in ns per GiB.
namespace cowshed::bench {
namespace {

struct Linked {
  const Linked* previous;
  std::array<std::uint64_t, 5> values;
};

double per_gib(std::uint64_t since, std::size_t bytes) {
  return static_cast<double>(now_ns() - since) *
         (static_cast<double>(1_GiB) / static_cast<double>(bytes));
}

// Of small objects.
double freeze_once(bool huge, std::size_t bytes, benchmark::State& state) {
  Arena arena = got(Arena::create(
      {.name = "freeze", .capacity = bytes + bytes / 4 + 64_MiB, .huge_pages = huge}));
  const std::size_t count = bytes / sizeof(Linked);
  const Linked* last = nullptr;
  for (std::size_t i = 0; i < count; ++i)
    last = new (arena.allocate(sizeof(Linked))) Linked{last, {i}};
  const std::uint64_t before = now_ns();
  got(arena.freeze());
  const double took = per_gib(before, bytes);
  std::uint64_t sum = 0;
  for (; last != nullptr; last = last->previous) sum += last->values[0];
  if (sum != count * (count - 1) / 2) throw std::runtime_error("a freeze has changed the data");
  const auto small = static_cast<double>(arena.stats().small_page_bytes);
  state.counters["huge_percent"] = 100 - 100 * small / static_cast<double>(bytes);
  return took;
}

double copy_once(bool huge, std::size_t bytes) {
  void* from = mmap(nullptr, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (from == MAP_FAILED) throw std::runtime_error("no memory to copy");
  madvise(from, 2 * bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  std::memset(from, 1, 2 * bytes);
  auto* to = static_cast<std::byte*>(from) + bytes;
  to[bytes - 1] = std::byte{0};
  const std::uint64_t before = now_ns();
  std::memcpy(to, from, bytes);
  const double took = per_gib(before, bytes);
  if (std::memcmp(to, from, bytes) != 0) throw std::runtime_error("memcpy did not copy");
  munmap(from, 2 * bytes);
  return took;
}

}  // namespace

void add_freeze() {
  const std::size_t bytes = is_quick() ? 64_MiB : 512_MiB;
  for (const std::string pages : {"2M", "4K", "2M_again"}) {
    const bool huge = pages != "4K";
    add("freeze/objects/" + pages, [=](auto& state) { return freeze_once(huge, bytes, state); });
    add("freeze/memcpy/" + pages, [=](auto&) { return copy_once(huge, bytes); });
  }
}

}  // namespace cowshed::bench
