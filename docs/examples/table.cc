// Workers that share a table of ordinary objects, and count in memory that they may write to.
#include <array>
#include <atomic>
#include <cstdio>
#include <new>
#include <string>
#include <sys/mman.h>
#include <unordered_map>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_scope.h>
#include <cowshed/share/workers.h>

using namespace cowshed::size_literals;

struct Entry {
  std::vector<int> pages;
};
using Table = std::unordered_map<std::string, Entry>;

struct alignas(64) Statistics {  // of one worker, in a cache line of its own
  std::atomic<long> hits;
};

Table load() {
  Table table;
  for (int i = 0; i < 100'000; ++i) table["word " + std::to_string(i)].pages = {i, i + 1};
  return table;
}

int main() {
  auto arena = cowshed::Arena::create({.name = "table", .capacity = 1_GiB}).value();
  const Table& table = *cowshed::ArenaScope::make(arena, load).value();  // never destroyed
  if (!arena.freeze()) return 1;

  using All = std::array<Statistics, 4>;  // outside the arena: workers and parent write to it
  void* shared =
      mmap(nullptr, sizeof(All), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 1;
  All& statistics = *new (shared) All{};

  const auto serve = [&](const cowshed::Worker& self) {
    Statistics& own = statistics.at(static_cast<std::size_t>(self.rank));
    for (int i = self.rank; i < 200'000; i += self.count)
      if (table.contains("word " + std::to_string(i))) ++own.hits;
    return arena.private_bytes().value() == 0 ? 0 : 1;  // it has copied no page of the table
  };
  auto workers = cowshed::start({.count = 4}, serve).value();
  const auto exits = workers.wait().value();
  for (const auto& exit : exits)
    if (!exit.ok()) std::fprintf(stderr, "%s\n", exit.error.c_str());
  long hits = 0;
  for (const Statistics& each : statistics) hits += each.hits;
  std::printf("%ld hits\n", hits);
}
