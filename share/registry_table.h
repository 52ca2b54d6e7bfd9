#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>

// What the rest of share/ needs of the registry.
namespace cowshed {

class ArenaCore;

namespace registry {

std::mutex& mutex();  // comes after the arenas' mutexes

// Makes this process the root of a tree of its own, unless it is or descends from one.
void start_tree();

// Everything published in the arena becomes `released`.
void release_all_in(const ArenaCore* arena);

// In a forked child, with mutex() held: what lies in arenas that were not inherited is gone.
void disown_not_inherited();

// The published object that `address` lies in, for signal handlers: takes no lock.
struct Hit {
  const char* name = nullptr;  // null: none
  std::size_t offset = 0;
};
Hit object_at(std::uintptr_t address) noexcept;

}  // namespace registry
}  // namespace cowshed
