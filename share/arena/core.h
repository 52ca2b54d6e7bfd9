#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/share/arena/generation.h>
#include <cowshed/share/arena/malloc_route.h>
#include <cowshed/share/arena/memory.h>
#include <cowshed/share/arena/options.h>
#include <cowshed/share/arena/resource.h>
#include <cowshed/share/arena/thread_cache.h>
#include <cowshed/share/jemalloc/jemalloc.h>

namespace cowshed::internal {

//   vacant ── open() ─▶ open ── freeze() ─▶ strict or lenient ── thaw() ─▶ open ── refreeze() ─▶
//   ...
//
// A child that is forked while the arena is open does not inherit the open part.  If that is all of
// the arena, it is `not_inherited` in the child.
enum class ArenaState : std::uint8_t {
  vacant,  // the core belongs to no arena
  open,
  paused,  // open, but threads that allocate wait for the mutex
  strict,
  lenient,
  not_inherited
};

constexpr ArenaState frozen_state(FreezeMode mode) {
  return mode == FreezeMode::strict ? ArenaState::strict : ArenaState::lenient;
}

// The implementation of an Arena.  Cores are in arena/table.h and are never freed, only reused, so
// that signal handlers and ending threads can read one while another thread destroys its arena.
//
// An arena is one range of addresses.  Its frozen part, [begin, begin + frozen_bytes), is mapped
// from the sealed files of its generations.  While it is open, [open_begin, end) belongs to an
// arena of jemalloc, and ArenaMemory provides the memory.
//
//   core.cc             open and close, fork, statistics
//   core_allocation.cc  the slow paths of allocation, and jemalloc's requests for memory
//   core_caches.cc      what each thread has of each arena
//   core_freezing.cc    freeze, thaw, refreeze, collapse
class ArenaCore final {
 public:
  static constexpr std::size_t kNameSize = 64;
  static constexpr int kMostFiles = 1024;  // that a parcel can carry

  // Statistics of the frozen part.
  struct Frozen {
    std::size_t live_bytes = 0;
    std::uint64_t live_allocations = 0;
    std::size_t taken = 0;    // bytes of memory
    std::size_t on_disk = 0;  // of these, pages of an image; the kernel does not tell their size
    std::vector<Run> small;   // in 4 KiB pages of memory
    int huge_page_error = 0;  // see ArenaStats
    std::vector<Run> holes;   // 2 MiB ranges that were given back to the kernel

    std::size_t huge_bytes() const { return taken - std::min(taken, on_disk + size_of(small)); }
  };

  // A frozen arena, as another process must know it to map it.
  struct Description {
    std::string name;
    std::uintptr_t begin = 0;
    std::size_t capacity = 0;
    std::size_t used = 0;
    FreezeMode mode = FreezeMode::strict;
    std::uint32_t generation = 0;
    Frozen past = {};
    std::vector<Segment> segments = {};  // cover `used`
  };

  // The caller holds mutex(), except for observers and functions that are marked thread-safe.

  // Creates the resource() that open() and adopt() need.  Returns false if there is no memory.
  bool prepare();
  Expected<void> open(const ArenaOptions& options);
  // Takes over the mapping and the files of a frozen arena.  The caller has reserved its range.
  void adopt(Description description);
  Description describe() const;  // the files stay this arena's

  Expected<void> freeze(const FreezeOptions& options);
  Expected<void> thaw();
  Expected<void> refreeze(const Progress& progress);
  Expected<std::size_t> collapse(const Progress& progress);
  Expected<void> prefault() const;
  Expected<std::size_t> private_bytes() const;

  // Called when the Arena is destroyed.  Returns whether the core must stay, because there are
  // blocks that were allocated in an ArenaScope.  If it must, freezes it leniently where possible,
  // so that forked children have those blocks.  Else the caller calls close().
  bool abandon();
  bool is_needed();  // of an abandoned core: whether there still are such blocks
  void close();      // unmaps the range and makes the core vacant

  void disown_after_fork();   // in a child that was forked while the arena was open
  void refuse_before_fork();  // dies of the write that let_destructors_write() allowed, if any
  void forget_range();        // of a not_inherited arena: another core gets its range

  // Called at a store into a strict arena.  Maps the frozen part copy-on-write and returns true if
  // this process destroys its objects: the process froze the arena, has freed a frozen block, and
  // has no child left that could share the pages.  Later children would: see refuse_before_fork().
  // Async-signal-safe.
  bool let_destructors_write(void* address) noexcept;

  // Thread-safe.  `resource` may be that of an arena that used this core before.
  void* allocate_slowly(const ArenaResource& resource, std::size_t size, std::size_t alignment);
  void deallocate_unsized(void* block) noexcept;
  BlockInArena look_up(const void* block) noexcept;
  ArenaStats stats();

  // An ArenaScope begins, and ends, on this thread.  The arena cannot be frozen in between.
  // enter_scope() returns the arena of jemalloc that leave_scope() takes.
  Expected<unsigned> enter_scope();
  void leave_scope(std::uint64_t key, unsigned jemalloc_arena);
  // Errors: in_use, with what to do then.
  Expected<void> expect_no_scope(std::string_view then) const;
  // Why malloc() failed since the last scope began; none: it did not.
  std::optional<Error> refusal_in_scope() const;

  // Other processes may have the frozen part now, so its addresses must not be reused at once.
  void note_known_elsewhere() { known_elsewhere_ = known_elsewhere_ || generation_ > 0; }

  // Thread-safe.  Registers the destructor that runs when this thread ends.  It allocates, so it
  // must happen before a scope begins.
  static void prepare_thread();
  void release_cache(ThreadCache* cache);  // thread-safe; the thread has ended, or needs it no more

  std::mutex& mutex() { return mutex_; }
  ArenaResource* resource() const { return resource_.load(std::memory_order_acquire); }
  bool abandoned() const { return abandoned_.load(std::memory_order_acquire); }
  // Where jemalloc's part begins; end() if the arena is frozen.
  std::uintptr_t open_begin() const { return open_begin_.load(std::memory_order_relaxed); }
  ArenaState state() const { return state_.load(std::memory_order_acquire); }
  bool is_open() const { return state() == ArenaState::open || state() == ArenaState::paused; }
  bool frozen() const { return state() == ArenaState::strict || state() == ArenaState::lenient; }
  const char* name() const { return name_.data(); }
  std::uint64_t key() const { return key_.load(std::memory_order_relaxed); }
  std::uintptr_t begin() const { return begin_.load(std::memory_order_relaxed); }
  std::uintptr_t end() const { return end_.load(std::memory_order_relaxed); }
  std::size_t frozen_bytes() const { return frozen_bytes_.load(std::memory_order_relaxed); }
  std::size_t used() const { return is_open() ? memory_.used() : frozen_bytes(); }
  std::uint32_t generation() const { return generation_; }
  FreezeMode mode() const { return mode_; }
  const Frozen& past() const { return past_; }
  bool contains(const void* address) const {
    const auto value = reinterpret_cast<std::uintptr_t>(address);
    return value >= begin() && value < end();
  }
  // Whether this process was forked before the address was frozen, and so does not have it.
  bool lacks(std::uintptr_t address) const {
    return address >= lost_begin_.load(std::memory_order_relaxed);
  }
  // Whether the address is mapped in this process.  False if it was forked before the freeze.
  bool holds(const void* address) const {
    return contains(address) &&
           (is_open() || reinterpret_cast<std::uintptr_t>(address) < begin() + frozen_bytes());
  }
  tl::unexpected<Error> not_inherited_error() const;
  Expected<void> expect_frozen() const;

 private:
  // An arena of jemalloc.  Threads use different ones, so that none waits for the locks of another.
  // The first has the whole range.  The others take pieces of what it has free, and each takes what
  // others have free if that is all there is.
  struct Shard : jemalloc::ExtentHooks {
    ArenaCore* core = nullptr;
    unsigned jemalloc_arena = 0;
    int users = 0;  // caches of threads, and scopes
  };
  // As many as there are CPUs, but at least so many: a thread may also wait for the kernel.
  static constexpr std::size_t kLeastShards = 8;
  static constexpr std::size_t kMostShards = 32;
  static constexpr int kMostFurtherShards = 1024;  // jemalloc has 4,094 arenas in all
  static std::atomic<int> further_shards;
  // Large enough to be asked for seldom.  Each shard leaves half of one unused.
  static constexpr std::size_t kPiece = 256_KiB;

  static std::uint64_t new_key();
  static Expected<void> register_membarrier(const std::string& name);
  static tl::unexpected<Error> no_membarrier(const std::string& name);
  void set_name(const std::string& name);
  void become(Description description);
  void add_live_blocks(Frozen& to) const;

  // core.cc: the open part.
  Expected<void> start_jemalloc(const ArenaMapping& mapping, std::size_t first);
  // Calls give_up() if that fails or throws.
  template <class GiveUp>
  Expected<void> start_jemalloc_or(GiveUp give_up, const ArenaMapping& mapping, std::size_t first) {
    try {
      auto started = start_jemalloc(mapping, first);
      if (!started) give_up();
      return started;
    } catch (...) {
      give_up();
      throw;
    }
  }
  int create_shard(Shard& shard);
  void stop_jemalloc();
  std::span<Shard> shards() { return {shards_.data(), shard_count_.load()}; }
  std::span<const Shard> shards() const { return {shards_.data(), shard_count_.load()}; }
  jemalloc::ArenaCounts count_live() const;
  void purge();
  bool pause();
  void resume();

  // core_allocation.cc
  static void* provide_extent(jemalloc::ExtentHooks* hooks, void* address, std::size_t size,
                              std::size_t alignment, bool* zero, bool* commit, unsigned arena);
  bool give_range_to_jemalloc(const ArenaMapping& mapping);
  void move_thread_to(Shard& shard);
  void coalesce();
  template <class WhenOpen, class WhenFrozen>
  void visit_block(const void* block, WhenOpen open, WhenFrozen frozen) noexcept;
  [[noreturn]] void throw_refusal(std::size_t size, std::size_t alignment) const;
  Error no_memory_error(const std::string& request, int shortage) const;
  Error full_error(const std::string& request) const;

  // core_caches.cc
  bool find_thread_cache();
  bool make_thread_cache();
  ThreadCache* cache_of_thread() const;
  Shard& choose_shard();
  bool add_shard();
  void drop_user(unsigned jemalloc_arena);
  void forget_shards();
  static void drop_old_caches();

  // core_freezing.cc
  struct NextGeneration;
  Expected<void> seal(FreezeMode mode, const Progress& progress);
  Expected<NextGeneration> prepare_generation(const std::vector<Run>& changed,
                                              const Progress& progress);
  void become(NextGeneration& next, FreezeMode mode) noexcept;
  Expected<std::vector<Run>> copy_changed(const Generation& generation,
                                          const std::vector<Run>& changed, const Progress& progress,
                                          Frozen& now) const;
  std::vector<HeldFile> files_without(const SegmentMap& segments) const;
  Expected<void> reopen();
  void abandon_reopened();

  // Of the open part.
  ArenaMapping mapping() const { return {open_file_, begin(), end() - begin()}; }
  std::string who() const { return "arena '" + std::string(name()) + "'"; }

  std::mutex mutex_;
  std::atomic<std::uint64_t> key_ = 0;  // differs for each time that an arena is opened
  std::atomic<std::uintptr_t> begin_ = 0;
  std::atomic<std::uintptr_t> end_ = 0;
  std::atomic<ArenaResource*> resource_ = nullptr;
  std::array<char, kNameSize> name_{};
  std::atomic<ArenaState> state_ = ArenaState::vacant;
  std::atomic<bool> abandoned_ = false;
  bool huge_pages_ = true;
  bool known_elsewhere_ = false;
  bool was_entered_ = false;  // an ArenaScope of it has begun, ever

  // The frozen part.
  std::atomic<std::size_t> frozen_bytes_ = 0;
  std::uint32_t generation_ = 0;
  FreezeMode mode_ = FreezeMode::strict;  // of the last freeze
  SegmentMap segments_;                   // this core owns its files
  Frozen past_;
  std::atomic<std::uint64_t> dropped_frees_ = 0;
  std::atomic<pid_t> frozen_by_ = 0;
  std::atomic<char*> destroyed_at_ = nullptr;  // where a destructor wrote first

  // The open part.
  std::atomic<std::uintptr_t> open_begin_ = 0;
  std::atomic<std::uintptr_t> lost_begin_ = UINTPTR_MAX;  // of what a forked child lacks
  HeldFile open_file_;                                    // its memfd
  ArenaMemory memory_;
  std::array<Shard, kMostShards> shards_;
  std::atomic<std::size_t> shard_count_ = 0;
  std::size_t top_ = 0;             // the end of what jemalloc has got, from begin()
  std::size_t offered_ = 0;         // the size of the piece that jemalloc may get next; 0: none
  bool giving_range_ = false;       // in give_range_to_jemalloc()
  std::atomic<bool> full_ = false;  // jemalloc has asked for more since this was cleared
  int scopes_ = 0;
  ThreadCache* caches_ = nullptr;
};

// The error of an Arena that was moved from.
tl::unexpected<Error> moved_from_error();

}  // namespace cowshed::internal
