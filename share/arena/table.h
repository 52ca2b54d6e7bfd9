#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include <cowshed/share/arena/core.h>

// The arenas of this process, as a table of cores; and the fork handlers that keep them usable.
namespace cowshed::internal {

void give_back_core(ArenaCore* core);
struct GiveBackCore {
  void operator()(ArenaCore* core) const { give_back_core(core); }
};
// A core that is given back unless it is released to an Arena.
using VacantCore = std::unique_ptr<ArenaCore, GiveBackCore>;

// Fails if there are COWSHED_MAX_ARENAS.
Expected<VacantCore> take_vacant_core();

// All cores, also vacant ones.
std::vector<ArenaCore*> all_cores();

// Returns the arena whose range has the address, or null.  Takes no lock; async-signal-safe.
ArenaCore* find_arena(const void* address) noexcept;

// Writes the arena's present state into the published layout.  Call it after each change of state.
// show_arena_locked() needs process_tree::mutex() held, and returns the arena's index in the
// layout.
std::uint32_t show_arena_locked(const ArenaCore& core);
void show_arena(const ArenaCore& core);

// Called before an arena is unmapped.  Set by the registry; null if there is none.
inline constinit std::atomic<void (*)(const ArenaCore& arena)> arena_end_observer = nullptr;
// Called in a forked child that lacks an arena, or a part of it.
inline constinit std::atomic<void (*)()> lost_arena_observer = nullptr;

}  // namespace cowshed::internal
