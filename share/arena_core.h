#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/private_jemalloc.h>

namespace cowshed {

enum class ArenaState : std::uint8_t { vacant, open, freezing, strict, lenient, not_inherited };

// What one thread has of one arena.  Written by that thread only, except under the arena's mutex.
struct ThreadCache {
  unsigned jemalloc_cache = jemalloc::kNoCache;
  std::atomic<bool> busy = false;  // inside jemalloc: freeze() waits for it
  std::atomic<std::uint64_t> allocations = 0;
  std::atomic<std::uint64_t> deallocations = 0;
  std::atomic<std::size_t> bytes = 0;  // allocated minus deallocated; wraps, the sum does not
};

// The arena itself.  Lives in arena_table.h's pool and is never freed but reused, so that signal
// handlers and threads at their end may look at one that somebody destroys.
class ArenaCore final : public std::pmr::memory_resource {
 public:
  static constexpr std::size_t kNameSize = 64;

  // All of these are called with mutex() held, except the observers.
  Expected<void> open(const ArenaOptions& options);
  Expected<void> freeze(FreezeMode mode);
  void close();              // unmaps and makes the core vacant
  void disown_after_fork();  // in a child forked before the freeze

  std::mutex& mutex() { return mutex_; }
  ArenaState state() const { return state_.load(std::memory_order_acquire); }
  bool frozen() const { return state() == ArenaState::strict || state() == ArenaState::lenient; }
  const char* name() const { return name_.data(); }
  std::uintptr_t begin() const { return begin_.load(std::memory_order_relaxed); }
  std::uintptr_t end() const { return end_.load(std::memory_order_relaxed); }
  std::size_t used() const { return top_.load(std::memory_order_relaxed); }
  bool contains(const void* address) const {
    const auto value = reinterpret_cast<std::uintptr_t>(address);
    return value >= begin() && value < end();
  }
  ArenaStats stats();
  tl::unexpected<Error> not_inherited_error() const;

  // Gives back what a thread that ends had; `key` is the arena's when the cache was made.
  void retire(std::uint64_t key, ThreadCache* cache);

 private:
  struct Hooks : jemalloc::ExtentHooks {
    ArenaCore* core = nullptr;
  };

  void* do_allocate(std::size_t size, std::size_t alignment) override;
  void do_deallocate(void* block, std::size_t size, std::size_t alignment) override;
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

  static void* extend(jemalloc::ExtentHooks* hooks, void* address, std::size_t size,
                      std::size_t alignment, bool* zero, bool* commit, unsigned arena);
  ThreadCache* thread_cache();
  ThreadCache* make_thread_cache();
  void* allocate_uncached(std::size_t size, std::size_t alignment);
  void deallocate_uncached(void* block, std::size_t size, std::size_t alignment);
  void release_jemalloc();
  [[noreturn]] void refuse(std::size_t size) const;

  std::mutex mutex_;
  std::atomic<ArenaState> state_ = ArenaState::vacant;
  std::atomic<std::uint64_t> key_ = 0;  // differs for every arena there ever was in this process
  std::array<char, kNameSize> name_{};
  std::atomic<std::uintptr_t> begin_ = 0;
  std::atomic<std::uintptr_t> end_ = 0;
  std::atomic<std::size_t> top_ = 0;  // bytes given to jemalloc so far
  std::atomic<bool> full_ = false;    // has refused jemalloc once
  int fd_ = -1;
  unsigned jemalloc_arena_ = 0;
  Hooks hooks_;
  std::vector<std::unique_ptr<ThreadCache>> caches_;
  ThreadCache uncached_;  // counts, under the mutex, what no living thread's cache counts
  std::atomic<std::uint64_t> dropped_frees_ = 0;
  std::size_t huge_page_bytes_ = 0;
};

}  // namespace cowshed
