#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include <cowshed/share/arena/core.h>

// Every arena of this process.
namespace cowshed {

// A vacant core, held locked by the caller's next call of its mutex(); error when there are
// layout::kMaxArenas.
Expected<ArenaCore*> take_vacant_core();
void give_back_core(ArenaCore* core);

// Those that there are or were: some are vacant.
std::vector<ArenaCore*> all_cores();

// The arena in whose range `address` lies, or null.  Takes no lock, safe in a signal handler.
ArenaCore* find_arena(const void* address) noexcept;

// Enters the arena in the published layout as it now is: to be called after each change of its
// state, and with process_tree::mutex() held.  Returns its index there.
std::uint32_t show_arena_locked(const ArenaCore& core);
void show_arena(const ArenaCore& core);  // takes that mutex

// Called before an arena's memory goes; null: nobody.  The registry's.
inline constinit std::atomic<void (*)(const ArenaCore& arena)> arena_end_observer = nullptr;

}  // namespace cowshed
