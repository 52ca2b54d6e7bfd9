#include <cstdio>
#include <string>
#include <unordered_map>

#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

using namespace cowshed::size_literals;
using Index = std::pmr::unordered_map<std::pmr::string, int>;

void serve(const cowshed::Worker& self, const Index& index) {
  std::printf("worker %d: the answer is %d\n", self.rank, index.at("answer"));
}

int main() {
  // 64 GiB of addresses, not of memory.
  auto arena = cowshed::Arena::create({.name = "index", .capacity = 64_GiB}).value();
  Index* index = arena.make<Index>().value();  // its nodes and strings land there too
  index->emplace("answer", 42);
  auto ref = cowshed::publish("index", index).value();  // 16 bytes, checked at each use
  if (!arena.freeze()) return 1;                        // from here: immutable, in huge pages
  auto workers = cowshed::start({.count = 4}, serve, ref).value();  // fork; a const Index& arrives
  const auto exits = workers.wait().value();
  for (const auto& exit : exits)  // exit codes, signals, exceptions, stray writes
    if (!exit.ok()) std::fprintf(stderr, "%s\n", exit.error.c_str());
}
