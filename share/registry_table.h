#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include <cowshed/base/error.h>

// What the rest of share/ needs of the registry.
namespace cowshed {

class ArenaCore;

namespace registry {

std::mutex& mutex();  // comes after the arenas' mutexes

// Makes this process the root of a tree of its own, unless it is or descends from one.
void start_tree();

// Everything published in the arena becomes `released`.
void release_all_in(const ArenaCore* arena);

// A named object as an image of its arena has it.
struct ImageObject {
  std::string name;
  std::string type;               // as the compiler writes it; may be cut off
  std::uint64_t fingerprint = 0;  // of the type: mangled name, size and alignment
  std::size_t type_size = 0;
  std::uintptr_t address = 0;
  std::size_t bytes = 0;
  std::size_t alignment = 1;
  bool array = false;
  bool spawn_safe = false;
};

std::vector<ImageObject> named_in(const ArenaCore& arena);

// All of them or none.  `same_code`: saved by this program at these addresses.  Errors:
// invalid_argument (a name is in use, or the registry is full).
Expected<void> publish_image(const ArenaCore& arena, const std::vector<ImageObject>& objects,
                             bool same_code);

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
