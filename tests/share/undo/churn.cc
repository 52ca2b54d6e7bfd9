// A program that knows nothing of Cowshed: `churn SEED CALLS THREADS`, below libcowshed_undo.so.
//
// Threads call what changes memory at random, and know each byte.  So do their children, to the
// fourth generation.  Prints "right"; or the first wrong byte, to standard error.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <malloc.h>
#include <random>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kPage = 4096;
constexpr int kGenerations = 4;
constexpr int kDontNeedLocked = 24;               // MADV_DONTNEED_LOCKED
constexpr std::chrono::milliseconds kIdle(1600);  // the library gives copies back
constexpr unsigned kCallsPerFork = 1'000;

// 0 has zeros, as a new page.
unsigned char byte_of(unsigned value, std::size_t at) {
  return value == 0 ? 0 : static_cast<unsigned char>(value + at * 7 + (at >> 8U) * value);
}

[[noreturn]] void fail(const char* what, const void* where) {
  std::fprintf(stderr, "PID %d: %s: wrong at %p\n", getpid(), what, where);
  _exit(1);
}

// Of malloc().
struct Block {
  unsigned char* memory;
  std::size_t size;
  unsigned value;

  void check(std::size_t end) const {
    for (std::size_t i = 0; i < end; ++i)
      if (memory[i] != byte_of(value, i)) fail("a block", memory + i);
  }
  void write(unsigned to) {
    value = to;
    for (std::size_t i = 0; i < size; ++i) memory[i] = byte_of(value, i);
  }
};

// A mapping, and what each of its pages has.
struct Pages {
  unsigned char* memory;
  std::vector<unsigned> values;

  std::size_t size() const { return values.size() * kPage; }
  unsigned char* at(std::size_t page) const { return memory + page * kPage; }
  void write(std::size_t page, unsigned value) {
    for (std::size_t i = 0; i < kPage; ++i) at(page)[i] = byte_of(value, i);
    values[page] = value;
  }
  void check(std::size_t first, std::size_t end, const char* what) const {
    for (std::size_t page = first; page < end; ++page)
      for (std::size_t i = 0; i < kPage; ++i)
        if (at(page)[i] != byte_of(values[page], i)) fail(what, at(page) + i);
  }
};

class Churn {
 public:
  Churn(unsigned seed, int generation) : random_(seed), generation_(generation) {}

  void run(unsigned long calls) {
    for (unsigned long call = 1; call <= calls; ++call) {
      while (Clock::now().time_since_epoch().count() < idle_until) usleep(10'000);
      step(calls);
      if (call % 256 == 0 || call == calls) check_all();
    }
  }

 private:
  std::size_t below(std::size_t end) { return random_() % end; }
  unsigned next_value() { return value_ = value_ % 250 + 1; }

  void check_all() const {
    for (const Pages& pages : mappings_) pages.check(0, pages.values.size(), "a check");
    for (const Block& block : blocks_) block.check(block.size);
  }

  void map() {
    const std::size_t count = 40 + below(120);
    void* memory =
        mmap(nullptr, count * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail("mmap", memory);
    Pages& pages = mappings_.emplace_back(
        Pages{static_cast<unsigned char*>(memory), std::vector<unsigned>(count)});
    for (std::size_t page = 0; page < count; ++page)
      if (below(8) != 0) pages.write(page, next_value());
  }
  void forget(Pages& pages) {
    std::swap(pages, mappings_.back());
    mappings_.pop_back();
  }

  void step(unsigned long calls) {
    if (mappings_.size() < 3) return map();
    Pages& pages = mappings_[below(mappings_.size())];
    const std::size_t count = pages.values.size();
    const std::size_t first = below(count);
    const std::size_t end = first + 1 + below(std::min<std::size_t>(count - first, 12));
    unsigned char* const begin = pages.at(first);
    const std::size_t size = (end - first) * kPage;
    const auto is_empty = [&] { std::fill(&pages.values[first], &pages.values[end - 1] + 1, 0); };
    switch (below(20)) {
      case 0:
        if (mappings_.size() < 12) return map();
        munmap(pages.memory, pages.size());
        return forget(pages);
      case 1:
      case 2:
        if (madvise(begin, size, below(2) != 0 ? kDontNeedLocked : MADV_DONTNEED) != 0) {
          munlock(begin, size);
          if (madvise(begin, size, MADV_DONTNEED) != 0) fail("madvise", begin);
        }
        is_empty();
        return pages.check(first, end, "MADV_DONTNEED");
      case 3:
        madvise(begin, size, MADV_FREE);  // fails where it is locked
        for (std::size_t page = first; page < end; ++page) pages.write(page, next_value());
        return;
      case 4:
        mprotect(begin, size, PROT_READ);
        pages.check(first, end, "mprotect");
        mprotect(begin, size, PROT_READ | PROT_WRITE);
        return;
      case 5:
        mlock(begin, size);
        if (below(4) != 0) munlock(begin, size);
        return;
      case 6: return resize(pages, 20 + below(160));
      case 7: return move(pages);
      case 8: return leave(pages);
      case 9:
        mmap(begin, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        return is_empty();
      case 10: madvise(begin, size, below(2) != 0 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE); return;
      case 11: madvise(begin, size, below(2) != 0 ? MADV_MERGEABLE : MADV_UNMERGEABLE); return;
      case 12:
        for (int i = 0; i < 8; ++i) change_block();
        return;
      case 13: malloc_trim(0); return;
      case 14: return pages.write(first, next_value());
      case 15:
        if (below(kCallsPerFork / 20) == 0) fork_one(calls);
        return;
      default:
        for (std::size_t page = first; page < end; ++page)
          for (int i = 0; i < 2; ++i) {  // a write that changes nothing, as of a reference count
            volatile unsigned char& byte = *pages.at(page);
            byte = byte ^ 1U;
          }
    }
  }

  // mremap(2) fails for some mappings, such as partly locked ones.
  void resize(Pages& pages, std::size_t count) {
    void* memory = mremap(pages.memory, pages.size(), count * kPage, MREMAP_MAYMOVE);
    if (memory == MAP_FAILED) return;
    pages.memory = static_cast<unsigned char*>(memory);
    const std::size_t before = pages.values.size();
    pages.values.resize(count);
    pages.check(std::min(before, count), count, "mremap");
  }
  void move(Pages& pages) {
    void* place = mmap(nullptr, pages.size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void* memory =
        mremap(pages.memory, pages.size(), pages.size(), MREMAP_MAYMOVE | MREMAP_FIXED, place);
    if (memory == MAP_FAILED) return forget(pages);  // a part may have moved
    pages.memory = static_cast<unsigned char*>(memory);
  }
  void leave(Pages& pages) {
    void* memory = mremap(pages.memory, pages.size(), pages.size(),
                          MREMAP_MAYMOVE | MREMAP_DONTUNMAP, nullptr);
    if (memory == MAP_FAILED) return;
    Pages{pages.memory, std::vector<unsigned>(pages.values.size())}.check(0, pages.values.size(),
                                                                          "MREMAP_DONTUNMAP");
    munmap(pages.memory, pages.size());
    pages.memory = static_cast<unsigned char*>(memory);
  }
  // Small, larger than a page, or with a mapping of its own.
  void change_block() {
    constexpr std::size_t kMost = 96;
    const std::size_t size =
        1 + below(std::array<std::size_t, 3>{200, 9'000, 300'000}.at(below(3)));
    if (blocks_.size() < kMost) {
      const Block block = {static_cast<unsigned char*>(std::calloc(1, size)), size, 0};
      block.check(size);
      blocks_.push_back(block);
    } else {
      std::swap(blocks_[below(kMost)], blocks_.back());
      Block& block = blocks_.back();
      block.check(block.size);
      if (below(2) != 0) {
        std::free(block.memory);
        return blocks_.pop_back();
      }
      block.memory = static_cast<unsigned char*>(std::realloc(block.memory, size));
      block.check(std::min(block.size, std::exchange(block.size, size)));
    }
    blocks_.back().write(next_value());
  }

  void fork_one(unsigned long calls) {
    if (generation_ == kGenerations) return;
    const bool is_killed = below(4) == 0;
    const auto seed = static_cast<unsigned>(random_());
    const pid_t child = fork();
    if (child == 0) {
      ++generation_;
      idle_until = (Clock::now() + kIdle).time_since_epoch().count();
      std::thread other([&] { Churn(seed, generation_).run(calls / 20); });
      run(calls / 20);
      other.join();
      _exit(0);
    }
    idle_until = (Clock::now() + kIdle).time_since_epoch().count();
    if (is_killed) {
      usleep(static_cast<useconds_t>(below(200'000)));
      kill(child, SIGKILL);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0 && !(is_killed && status == SIGKILL)) fail("a child", nullptr);
  }

  static inline std::atomic<Clock::rep> idle_until;

  std::minstd_rand random_;
  int generation_;
  unsigned value_ = 0;
  std::vector<Pages> mappings_;
  std::vector<Block> blocks_;
};

}  // namespace

int main(int, char** arguments) {
  const auto seed = static_cast<unsigned>(std::atoi(arguments[1]));
  const auto calls = std::strtoul(arguments[2], nullptr, 10);
  std::signal(SIGALRM, [](int) {});
  const itimerval every = {{0, 7'000}, {0, 7'000}};
  setitimer(ITIMER_REAL, &every, nullptr);
  std::vector<std::thread> threads;
  for (int i = 0; i < std::atoi(arguments[3]); ++i)
    threads.emplace_back([=] { Churn(seed * 100 + static_cast<unsigned>(i), 0).run(calls); });
  for (std::thread& thread : threads) thread.join();
  std::puts("right");
}
