#pragma once

#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {

// `count` threads, each of which runs body(its number).  They are joined where the result ends.
template <class Number, class Body>
std::vector<std::jthread> begin_threads(Number count, const Body& body) {
  std::vector<std::jthread> threads;
  for (Number i = 0; i < count; ++i) threads.emplace_back([body, i] { body(i); });
  return threads;
}

// Forks `rounds` times while three threads repeat `work`.  Each child must say "fine".
template <class Work, class InChild>
void fork_while(int rounds, const Work& work, const InChild& in_child) {
  std::atomic<bool> over = false;
  const auto threads = begin_threads(3, [&](int i) {
    while (!over) work(i);
  });
  for (int round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
    const auto child = run_in_child([&]() -> std::string {
      alarm(60);
      return in_child();
    });
    EXPECT_EQ(child.said, "fine") << "signal " << child.signal;
  }
  over = true;
}

}  // namespace cowshed::test
