// Refork from a warm worker: the first worker learns, and then becomes the parent of the others,
// which share all that it has learnt.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <unordered_map>

#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

using namespace cowshed::size_literals;
using Answers = std::pmr::unordered_map<int, double>;

constexpr int kQuestions = 100'000;

void serve(const cowshed::Worker& self, const Answers& answers, const cowshed::Arena& arena) {
  double sum = 0;
  for (int question = 0; question < kQuestions; ++question) sum += answers.at(question);
  std::printf("worker %d: %zu answers are warm, their sum is %.0f, %zu bytes copied\n", self.rank,
              answers.size(), sum, arena.private_bytes().value());
}

int wait_for(cowshed::Workers<> workers) {
  const auto exits = workers.wait().value();
  for (const auto& exit : exits)
    if (!exit.ok()) std::fprintf(stderr, "%s\n", exit.error.c_str());
  return std::all_of(exits.begin(), exits.end(), [](const auto& exit) { return exit.ok(); }) ? 0
                                                                                             : 1;
}

int main() {
  auto arena = cowshed::Arena::create({.name = "answers", .capacity = 1_GiB}).value();
  Answers* answers = arena.make<Answers>().value();
  auto ref = cowshed::publish("answers", answers).value();
  // Lenient: whoever writes gets a copy of the page for itself.
  if (!arena.freeze(cowshed::FreezeMode::lenient)) return 1;

  const auto warm_up_and_fork = [&] {
    if (!arena.thaw()) return 1;  // what it allocates goes into the unused rest of the arena
    for (int question = 0; question < kQuestions; ++question)
      answers->emplace(question, std::sqrt(question));
    if (!arena.refreeze())
      return 1;  // what it wrote and added: shared, sealed, the next generation
    return wait_for(cowshed::start({.count = 4}, serve, ref, arena).value());
  };
  return wait_for(cowshed::start({.count = 1, .name = "warm"}, warm_up_and_fork).value());
}
