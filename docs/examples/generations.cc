// Workers that answer from a table: started, restarted when one is killed, stopped, and replaced by
// workers with the next version of the table.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <unordered_map>
#include <utility>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_scope.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/workers.h>

using namespace cowshed::size_literals;
using namespace std::chrono_literals;
using Table = std::unordered_map<std::string, int>;

Table load(int version) {
  Table table;
  for (int i = 0; i < 100'000; ++i) table["word " + std::to_string(i)] = version * i;
  return table;
}

// A version of the table, and the workers that have it.
struct Generation {
  cowshed::Arena arena;
  cowshed::Channel<int> questions;
  cowshed::Workers<> workers;

  static Generation start(int version) {
    auto arena = cowshed::Arena::create({.name = "table", .capacity = 1_GiB}).value();
    const auto make = [&] { return load(version); };
    const Table* table = cowshed::ArenaScope::make(arena, make).value();
    arena.freeze().value();
    auto questions = cowshed::Channel<int>::create({.name = "questions"}).value();
    auto answer = [table, version, questions]() mutable {
      while (const auto question = questions.receive())  // until it is closed and empty
        if (table->at("word " + std::to_string(*question)) != version * *question) return 1;
      return 0;
    };
    auto workers = cowshed::start({.count = 4, .restarts = 10}, answer).value();
    return {std::move(arena), std::move(questions), std::move(workers)};
  }

  // The channel may be full because workers have died: they are restarted meanwhile.
  void ask(int question) {
    while (!questions.send(question, 10ms)) (void)workers.wait_for(0ms);
  }

  // The workers answer what was asked, and end.  The table is freed.
  void stop() {
    questions.close();
    const auto exits = workers.wait().value();
    int restarts = 0;
    for (const auto& exit : exits) {
      restarts += exit.restarts;
      if (!exit.ok()) std::fprintf(stderr, "%s\n", exit.error.c_str());
    }
    std::printf("%zu workers ended, %d restart, %zu questions lost\n", exits.size(), restarts,
                questions.stats().lost.size());
    arena.discard().value();
  }
};

int main() {
  Generation now = Generation::start(1);
  (void)kill(now.workers.processes()[2].pid(), SIGKILL);  // as for want of memory
  for (int i = 0; i < 100'000; ++i) {
    now.ask(i);
    if (i == 50'000) {
      Generation next = Generation::start(2);  // beside the old ones, which are still at work
      now.stop();
      now = std::move(next);
    }
  }
  now.stop();
}
