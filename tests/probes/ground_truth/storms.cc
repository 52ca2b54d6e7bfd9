#include "steps.h"

// N processes at once on all CPUs, under the ordinary scheduler: more than there are CPUs, so that
// each is preempted often, also inside the kernel.

namespace ground_truth {
namespace {

constexpr long kPages = 2000;  // storm_test.cc knows it
constexpr long kPagesOfShort = 50;
constexpr long kThreads = 4;
constexpr long kShortAtOnce = 16;

void be_ordinary() {
  const sched_param ordinary = {};
  cpu_set_t all;
  std::memset(&all, 0xff, sizeof all);
  if (sched_setscheduler(0, SCHED_OTHER, &ordinary) != 0) fail("sched_setscheduler");
  if (sched_setaffinity(0, sizeof all, &all) != 0) fail("sched_setaffinity");
}

char* written_pages() {
  char* pages = small_pages(kPages * kPage);
  write_some(pages, kPages);
  return pages;
}

void await_children(long n) {
  int status = 0;
  for (long i = 0; i < n; ++i)
    if (wait(&status) < 0 || status != 0) fail("child");
}

template <class Work>
void storm(Work work) {
  be_ordinary();
  char* pages = written_pages();
  measured([=] {
    for (long i = 0; i < count; ++i) {
      if (fork() != 0) continue;
      work(pages);
      _exit(0);
    }
    await_children(count);
  });
}

KIND(storm_of_copies) {
  storm([](char* pages) { write_some(pages, kPages); });
}

void* write_quarter(void* pages) {
  write_some(static_cast<char*>(pages), kPages / kThreads);
  return nullptr;
}

KIND(storm_of_threads) {
  storm([](char* pages) {
    pthread_t threads[kThreads];
    for (long i = 0; i < kThreads; ++i)
      threads[i] = start_thread(write_quarter, page_of(pages, i * kPages / kThreads));
    for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  });
}

// The kernel writes.
KIND(storm_of_reads) {
  const int source = filled_memory_file("plain");
  storm([=](char* pages) {
    for (long i = 0; i < kPages; ++i)
      if (pread(source, page_of(pages, i), 1, 0) != 1) fail("pread");
  });
}

KIND(executed_by_storm) {
  be_ordinary();
  char* pages = written_pages();
  one_down([=] { write_some(pages, kPages); });
}

// Each child copies, executes a program, and that has a child that copies.
KIND(storm_of_execs) {
  storm([](char* pages) {
    write_some(pages, kPages);
    execute("executed_by_storm", "1");
  });
}

KIND(storm_of_short_children) {
  be_ordinary();
  char* pages = written_pages();
  measured([=] {
    for (long i = 0; i < count; ++i) {
      if (i >= kShortAtOnce) await_children(1);
      if (fork() != 0) continue;
      write_some(pages, kPagesOfShort);
      _exit(0);
    }
    await_children(count < kShortAtOnce ? count : kShortAtOnce);
  });
}

}  // namespace
}  // namespace ground_truth
