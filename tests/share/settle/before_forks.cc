// Preloaded into a program, settles its heap before a fork, at most ten times a second.  So each
// test that forks is one of settle(), too.
#include <chrono>
#include <pthread.h>

#include <cowshed/share/process/tree.h>
#include <cowshed/share/settle.h>

namespace {

using Clock = std::chrono::steady_clock;

void settle_first() {
  static Clock::time_point next;
  if (Clock::now() < next) return;
  // Programs that refuse it, by a seccomp filter, say, go on.
  (void)cowshed::settle({.threads = cowshed::OtherThreads::stop});
  next = Clock::now() + std::chrono::milliseconds(100);
}

// Called before this library's own handlers, which are registered first, take its mutexes.
[[gnu::constructor]] void prepare() {
  (void)cowshed::process_tree::start();
  pthread_atfork(settle_first, nullptr, nullptr);
}

}  // namespace
