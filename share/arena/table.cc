#include <array>
#include <atomic>
#include <memory>
#include <mutex>

#include <cowshed/base/try.h>
#include <cowshed/share/arena/malloc_route.h>
#include <cowshed/share/arena/table.h>
#include <cowshed/share/os/fork_state.h>
#include <cowshed/share/process/fork_handlers.h>
#include <cowshed/share/process/published_layout.h>
#include <cowshed/share/process/tree.h>

namespace cowshed::internal {
namespace {

struct Entry {
  std::atomic<ArenaCore*> core = nullptr;  // never freed once made
  bool taken = false;                      // under the table's mutex
};

std::array<Entry, COWSHED_MAX_ARENAS> table;
std::atomic<std::uint32_t> cores_made = 0;  // entries from here on have no core
COWSHED_FORK_STATE std::mutex table_mutex;
COWSHED_FORK_STATE ThreadScope scope_of_forking_thread;  // under the table's mutex

template <class Function>
void for_each_core(Function function) {
  const std::uint32_t count = cores_made.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < count; ++i) function(*table[i].core.load());
}

cowshed_arena_state shown_state(ArenaState state) {
  switch (state) {
    case ArenaState::open:
    case ArenaState::paused: return COWSHED_ARENA_OPEN;
    case ArenaState::strict: return COWSHED_ARENA_STRICT;
    case ArenaState::lenient: return COWSHED_ARENA_LENIENT;
    default: return COWSHED_ARENA_VACANT;
  }
}

// Also leaves the thread's ArenaScope, so that nothing in the child allocates from its arena.
void before_fork() {
  for_each_core([](ArenaCore& core) { core.refuse_before_fork(); });
  first_use_of_libc.lock();
  table_mutex.lock();
  scope_of_forking_thread = suspend_scope();
  for_each_core([](ArenaCore& core) {
    core.mutex().lock();
    core.note_known_elsewhere();
  });
}

void unlock_all() {
  for_each_core([](ArenaCore& core) { core.mutex().unlock(); });
  table_mutex.unlock();
  first_use_of_libc.unlock();
}

void after_fork_in_parent() {
  resume_scope(scope_of_forking_thread);
  unlock_all();
}

void after_fork_in_child() {
  for_each_core([](ArenaCore& core) {
    if (core.is_open()) {
      core.disown_after_fork();
      show_arena(core);
      if (auto* const observer = lost_arena_observer.load()) observer();
    }
  });
  unlock_all();
}

// Closes abandoned arenas whose last blocks were freed, and returns how many must stay.  The caller
// holds the table's mutex.
std::uint32_t close_abandoned() {
  std::uint32_t needed = 0;
  for (auto& entry : table) {
    ArenaCore* core = entry.core.load();
    if (!entry.taken || !core->abandoned()) continue;
    const std::lock_guard lock(core->mutex());
    // Another thread may have closed it meanwhile, or opened it again.
    if (!core->abandoned() || core->state() == ArenaState::vacant) continue;
    if (core->is_needed()) {
      ++needed;
      continue;
    }
    core->close();
    show_arena(*core);
    entry.taken = false;
  }
  return needed;
}

}  // namespace

Expected<VacantCore> take_vacant_core() {
  static constexpr fork_handlers::Handlers kHandlers = {&before_fork, &after_fork_in_parent,
                                                        &after_fork_in_child};
  fork_handlers::enter(fork_handlers::Rank::arenas, kHandlers);
  // Before any fork, so that children know references that the parent publishes later.
  TRY_VOID(process_tree::start());
  const OutsideScope outside;
  const std::lock_guard lock(table_mutex);
  const std::uint32_t abandoned = close_abandoned();
  for (std::uint32_t i = 0; i < COWSHED_MAX_ARENAS; ++i) {
    Entry& entry = table[i];
    if (entry.taken) continue;
    if (i == cores_made.load(std::memory_order_relaxed)) {
      entry.core.store(std::make_unique<ArenaCore>().release());
      cores_made.store(i + 1, std::memory_order_release);
    }
    if (!entry.core.load()->prepare())
      return make_error(ErrorCode::out_of_memory, "no memory is left for another arena's records");
    entry.taken = true;
    return VacantCore(entry.core.load());
  }
  return make_error(ErrorCode::invalid_argument,
                    "a process has at most 1024 arenas at a time; destroy one first, of those that "
                    "exist: " +
                        std::to_string(abandoned) +
                        " were destroyed, but stay for blocks that were allocated in an ArenaScope "
                        "and not freed");
}

void give_back_core(ArenaCore* core) {
  show_arena(*core);
  const std::lock_guard lock(table_mutex);
  for (auto& entry : table)
    if (entry.core.load() == core) entry.taken = false;
}

std::vector<ArenaCore*> all_cores() {
  const OutsideScope outside;
  std::vector<ArenaCore*> result;
  for_each_core([&](ArenaCore& core) { result.push_back(&core); });
  return result;
}

ArenaCore* find_arena(const void* address) noexcept {
  const std::uint32_t count = cores_made.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < count; ++i) {
    ArenaCore* core = table[i].core.load(std::memory_order_relaxed);
    if (core->contains(address)) return core;
  }
  return nullptr;
}

std::uint32_t show_arena_locked(const ArenaCore& core) {
  std::uint32_t index = 0;
  while (table[index].core.load(std::memory_order_relaxed) != &core) ++index;
  layout::Arena shown{};
  shown.state = shown_state(core.state());
  if (shown.state == COWSHED_ARENA_VACANT) {
    layout::clear_arena(index);
    return index;
  }
  shown.begin = core.begin();
  shown.end = core.end();
  shown.used = core.used();
  layout::set_text(shown.name, core.name());
  layout::put_arena(index, shown);
  return index;
}

void show_arena(const ArenaCore& core) {
  const std::lock_guard lock(process_tree::mutex());
  show_arena_locked(core);
}

}  // namespace cowshed::internal
