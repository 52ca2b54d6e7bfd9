#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

// The room share/registry: published objects, and references to them.  It may use base, share/os,
// share/jemalloc, share/process and share/arena.
//
// This header is for the rest of share/: published objects on their way between processes.  All
// functions are thread-safe.
namespace cowshed::internal {
class ArenaCore;
struct RefBits;
struct TypeInfo;
}  // namespace cowshed::internal

namespace cowshed::registry {

// A published object, as one process describes it to another.
struct Object {
  std::string name;               // empty: published without a name
  std::string type;               // as the compiler writes it, possibly cut off
  std::uint64_t fingerprint = 0;  // hash_type() of the type
  std::size_t type_size = 0;
  std::uintptr_t address = 0;
  std::size_t bytes = 0;
  std::size_t alignment = 1;
  bool array = false;
  bool spawn_safe = false;
  std::uint64_t code = 0;        // code_id() of the process that made it
  std::uint32_t generation = 0;  // 0: publish_foreign() assigns one, and the publisher
  pid_t publisher = 0;
};

// Publishes an object that lies in no arena.  Only this process and the children that it forks
// later have it; it must stay until it is withdrawn.  `name`: null for none.  Errors: as of
// publish(), and system_call.
Expected<internal::RefBits> publish_own(const std::string_view* name, const void* object,
                                        const internal::TypeInfo& type);

// Makes this process a member of another's tree, whose last publication is `last_generation`.  Does
// nothing if this process is a member.  `who` begins error messages.  Does not see an arena that
// another thread is just creating.  Errors: wrong_process_tree (this process has arenas of another
// tree), foreign_descriptor, system_call.
Expected<void> join_tree(std::uint64_t id, FileDescriptor memfd, std::uint32_t last_generation,
                         const std::string& who);

// All objects in the arena, including those that this process did not inherit.
std::vector<Object> objects_in(const internal::ArenaCore& arena);

// Enters objects that another process published in these arenas, all or none.  `advice` ends the
// message if one is in use.  Errors: invalid_argument (a name or a generation is in use, or the
// registry is full).
struct ArenaObjects {
  const internal::ArenaCore* arena;
  std::vector<Object> objects;
};
Expected<void> publish_foreign(const std::vector<ArenaObjects>& arenas, const std::string& advice);

// For an arena that stays mapped: withdraws the objects received with it that are not among
// `objects`, and removes the objects that are published here already from `objects`.
void keep_objects(const internal::ArenaCore& arena, std::vector<Object>& objects);

// Enters objects that this process cannot have because their arena was not frozen.  References to
// them then fail with not_inherited.
void enter_lost(const std::string& arena, const std::vector<Object>& objects);

}  // namespace cowshed::registry
