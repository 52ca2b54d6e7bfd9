// Workers that build large results, which their parent uses in place after they have ended.
#include <cstdio>
#include <string>
#include <utility>

#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

using namespace cowshed::size_literals;
using Words = std::pmr::vector<std::pmr::string>;

std::pair<cowshed::Arena, cowshed::Ref<Words>> build(const cowshed::Worker& self) {
  auto arena = cowshed::Arena::create({.name = "result", .capacity = 1_GiB}).value();
  Words* words = arena.make<Words>().value();
  for (int i = 0; i < 100'000; ++i)
    words->emplace_back("word " + std::to_string(i) + " of worker " + std::to_string(self.rank));
  const cowshed::Ref<Words> ref = cowshed::publish(words).value();
  (void)arena.freeze();  // if that failed, the parent is told so: only a frozen arena is sent
  return {std::move(arena), ref};  // the arena goes with the reference
}

int main() {
  auto workers = cowshed::start({.count = 3}, build).value();
  const auto results = workers.wait().value();  // the workers are gone
  std::size_t copied = 0;
  int whole = 0;
  for (const auto& result : results) {
    const auto& [arena, ref] = result.value.value();
    const Words* words = ref.try_get();  // the worker's own, where it made them
    whole += words != nullptr && words->size() == 100'000 &&
             words->back().ends_with(std::to_string(result.rank));
    copied += arena.private_bytes().value();
  }
  std::printf("%d lists of 100000 words, %zu bytes copied\n", whole, copied);
}
