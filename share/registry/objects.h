#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

// What the rest of share/ needs of the registry.
namespace cowshed {

class ArenaCore;

namespace registry {

// Makes this process a member of another's tree, whose last publication so far was
// `last_generation`; nothing if it is one.  Errors: wrong_process_tree (arenas or references here
// are of another), foreign_descriptor, system_call.
Expected<void> join_tree(std::uint64_t id, FileDescriptor memfd, std::uint32_t last_generation,
                         const std::string& who);

// A published object, for another process.
struct Object {
  std::string name;
  std::string type;               // as the compiler writes it; may be cut off
  std::uint64_t fingerprint = 0;  // of the type: mangled name, size and alignment
  std::size_t type_size = 0;
  std::uintptr_t address = 0;
  std::size_t bytes = 0;
  std::size_t alignment = 1;
  bool array = false;
  bool spawn_safe = false;
  std::uint64_t code = 0;        // code_id() of where its pointers to code are good
  std::uint32_t generation = 0;  // 0: to be given one, and the publisher
  pid_t publisher = 0;
};

// Also those that this process did not inherit.
std::vector<Object> objects_in(const ArenaCore& arena);

// What another process published in these arenas, in its slots: all of them or none.  `advice` ends
// the message where a name is in use.  Errors: invalid_argument (that, or the registry is full).
struct Publication {
  const ArenaCore* arena;
  std::vector<Object> objects;
};
Expected<void> publish_foreign(const std::vector<Publication>& publications,
                               const std::string& advice);

// What this process cannot have, since its arena was not frozen; so that its references say so.
void enter_lost(const std::string& arena, const std::vector<Object>& objects);

}  // namespace registry
}  // namespace cowshed
