#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <mutex>
#include <string>
#include <vector>

#include <cowshed/share/arena/generation.h>
#include <cowshed/share/arena/malloc_route.h>
#include <cowshed/share/arena/memory.h>
#include <cowshed/share/arena/options.h>
#include <cowshed/share/arena/resource.h>
#include <cowshed/share/arena/thread_cache.h>
#include <cowshed/share/jemalloc/jemalloc.h>

namespace cowshed {

enum class ArenaState : std::uint8_t {
  vacant,
  open,
  paused,  // open, but whoever allocates waits for the mutex
  strict,
  lenient,
  not_inherited
};

constexpr ArenaState frozen_state(FreezeMode mode) {
  return mode == FreezeMode::strict ? ArenaState::strict : ArenaState::lenient;
}

// The arena itself.  Lives in arena/table.h's pool and is never freed but reused, so that signal
// handlers and threads at their end may look at one that somebody destroys.
class ArenaCore final {
 public:
  static constexpr std::size_t kNameSize = 64;
  static constexpr int kMostFiles = 1024;  // of segments(), in a parcel

  // What the generations that are frozen left.
  struct Frozen {
    std::size_t live_bytes = 0;
    std::uint64_t live_allocations = 0;
    std::size_t taken = 0;
    std::size_t on_disk = 0;  // of it, pages of a file, of which the kernel does not say how large
    std::vector<Run> small;   // in 4 KiB pages of memory
    int huge_page_error = 0;  // as ArenaStats has it
    std::vector<Run> holes;   // 2 MiB ranges given back

    std::size_t huge_bytes() const { return taken - std::min(taken, on_disk + size_of(small)); }
  };

  // All that another process must know of a frozen arena to have it too.
  struct Description {
    std::string name;
    std::uintptr_t begin = 0;
    std::size_t capacity = 0;
    std::size_t used = 0;
    FreezeMode mode = FreezeMode::strict;
    std::uint32_t generation = 0;
    Frozen past;
    std::vector<Segment> segments;  // cover `used`
  };

  // All of these are called with mutex() held, except the observers and those said thread-safe.
  Expected<void> open(const ArenaOptions& options);
  // Takes over the mapping of a frozen arena, with its files; what is not used is reserved.
  void adopt(Description description);
  // Of what is frozen; its files stay this arena's.
  Description describe() const;
  Expected<void> freeze(const FreezeOptions& options);
  Expected<void> thaw();
  Expected<void> refreeze(const Progress& progress);
  Expected<std::size_t> collapse(const Progress& progress);
  Expected<void> prefault() const;
  Expected<std::size_t> private_bytes() const;
  // The handle is gone.  False: so is all that could refer to it, and it can be closed.  Else it
  // stays, for what a library keeps of an ArenaScope: frozen leniently, if that can be, so that
  // forked children have it.
  bool abandon();
  bool is_needed();          // the same again, of one that was abandoned
  void close();              // unmaps and makes the core vacant
  void disown_after_fork();  // in a child forked while it was open
  void forget_range();       // not inherited: another core gets it

  // Makes front(), before open() or adopt(); false: no memory.
  bool prepare();

  // Thread-safe.  `front` may be one of an arena that lived here before.
  void* take_slowly(const internal::ArenaFront& front, std::size_t size, std::size_t alignment);
  void give_slowly(const internal::ArenaFront& front, void* block) noexcept;
  void give_unsized(void* block) noexcept;
  BlockInArena look_up(const void* block) noexcept;

  std::mutex& mutex() { return mutex_; }
  internal::ArenaFront* front() const { return front_.load(std::memory_order_acquire); }
  bool abandoned() const { return abandoned_.load(std::memory_order_acquire); }
  // What jemalloc has of the range begins here; end() when frozen.
  std::uintptr_t open_begin() const { return open_begin_.load(std::memory_order_relaxed); }
  ArenaState state() const { return state_.load(std::memory_order_acquire); }
  bool is_open() const { return state() == ArenaState::open || state() == ArenaState::paused; }
  bool frozen() const { return state() == ArenaState::strict || state() == ArenaState::lenient; }
  const char* name() const { return name_.data(); }
  std::uint64_t key() const { return key_.load(std::memory_order_relaxed); }
  std::uintptr_t begin() const { return begin_.load(std::memory_order_relaxed); }
  std::uintptr_t end() const { return end_.load(std::memory_order_relaxed); }
  // End of what was frozen, from begin().
  std::size_t frozen_bytes() const { return frozen_bytes_.load(std::memory_order_relaxed); }
  std::size_t used() const { return is_open() ? memory_.used() : frozen_bytes(); }
  std::uint32_t generation() const { return generation_; }
  FreezeMode mode() const { return mode_; }
  const Frozen& past() const { return past_; }
  bool contains(const void* address) const {
    const auto value = reinterpret_cast<std::uintptr_t>(address);
    return value >= begin() && value < end();
  }
  // It is mapped in this process: false in one forked before it was frozen.
  bool holds(const void* address) const {
    return contains(address) &&
           (is_open() || reinterpret_cast<std::uintptr_t>(address) < begin() + frozen_bytes());
  }
  ArenaStats stats();
  tl::unexpected<Error> not_inherited_error() const;
  Expected<void> expect_frozen() const;

  // Other processes may have what is frozen now, so that its place must not be used again at once.
  void note_known_elsewhere() { known_elsewhere_ = known_elsewhere_ || generation_ > 0; }

  // An ArenaScope of this arena begins on this thread; what it needs to know.  The arena cannot be
  // frozen until it has ended.
  Expected<unsigned> enter_scope();  // jemalloc's arena
  void leave_scope(std::uint64_t key);

  // Registers this thread's end, which allocates, before a scope begins.
  static void prepare_thread();

  // Gives back what a thread that ends had.
  void retire(ThreadCache* cache);

 private:
  struct Hooks : jemalloc::ExtentHooks {
    ArenaCore* core = nullptr;
  };

  static std::uint64_t new_key();
  static tl::unexpected<Error> no_membarrier(const std::string& name);
  static Expected<void> register_membarrier(const std::string& name);
  static void* extend(jemalloc::ExtentHooks* hooks, void* address, std::size_t size,
                      std::size_t alignment, bool* zero, bool* commit, unsigned arena);
  bool hand_over(const ArenaMapping& mapping);
  // Opens [first, end()) for allocation; the mapping is there.
  Expected<void> start_jemalloc(const ArenaMapping& mapping, std::size_t first);
  void stop_jemalloc();
  bool pause();
  void resume();
  Expected<void> seal(FreezeMode mode, const Progress& progress);
  Expected<void> reopen();
  void abandon_reopened();
  void assign_sealed(const std::vector<Run>& runs);
  bool find_thread_cache();
  bool make_thread_cache();
  static void drop_old_caches();
  void* take_uncached(const internal::ArenaFront& front, std::size_t size, std::size_t alignment);
  std::string who() const { return "arena '" + std::string(name()) + "'"; }
  void put_together();
  template <class WhenOpen, class WhenFrozen>
  void visit_block(const void* block, WhenOpen open, WhenFrozen frozen) noexcept;
  [[noreturn]] void refuse(std::size_t size, std::size_t alignment) const;

  std::mutex mutex_;
  std::atomic<std::uint64_t> key_ = 0;  // differs for each time that an arena is opened
  std::atomic<internal::ArenaFront*> front_ = nullptr;
  std::atomic<std::uintptr_t> open_begin_ = 0;
  std::array<char, kNameSize> name_{};
  std::atomic<std::uintptr_t> begin_ = 0;
  std::atomic<std::uintptr_t> end_ = 0;
  std::atomic<std::size_t> frozen_bytes_ = 0;
  std::size_t top_ = 0;      // of the range, given to jemalloc so far
  std::size_t offered_ = 0;  // the next piece of it; 0: none
  std::atomic<ArenaState> state_ = ArenaState::vacant;
  std::atomic<bool> abandoned_ = false;
  std::atomic<bool> full_ = false;  // has refused jemalloc once
  bool handing_over_ = false;       // the range, so that none is to be used yet
  bool huge_pages_ = true;
  bool known_elsewhere_ = false;
  bool was_entered_ = false;              // by a scope, ever
  FreezeMode mode_ = FreezeMode::strict;  // of the last freeze
  int open_fd_ = -1;                      // the memfd of the open part
  unsigned jemalloc_arena_ = 0;
  int scopes_ = 0;
  std::uint32_t generation_ = 0;
  SegmentMap segments_;  // what is frozen; its files are this core's
  ArenaMemory memory_;
  Hooks hooks_;
  ThreadCache* caches_ = nullptr;
  std::atomic<std::uint64_t> dropped_frees_ = 0;
  Frozen past_;
};

// Of a handle without an arena.
tl::unexpected<Error> moved_from_error();

}  // namespace cowshed
