#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <typeinfo>
#include <unordered_map>

#include <cowshed/base/error.h>
#include <cowshed/share/ref.h>
#include <cowshed/share/registry/objects.h>

// The registry's tables.  Each forked child has its own copy.
//
//   records          the truth: one Record for each publication, by generation
//   names            from a name, except the empty one, to its records; at most one is live
//   newest           by slot: the last generation that this process has known, even if withdrawn
//   published_slots  (ref.h) by slot: stamp and address, which a Ref reads without the mutex
//   the layout       (published_layout.h) shows live records in arenas to cowtop
//
// A slot is the generation modulo kMaxPublished.  Two live records may have the same slot; a Ref to
// the second one then finds it through `records`, at every use.
//
// The caller of every function here holds process_tree::mutex().
namespace cowshed::registry {

struct Record {
  Object object;                               // `code` is 0 if the object is of this program
  bool live = true;                            // false: lost, this process did not inherit it
  bool received = false;                       // from another process, which may withdraw it
  const internal::ArenaCore* arena = nullptr;  // null: of publish_own(), or not in this process
  std::string lost_arena;                      // the arena's name if it is not
  std::uint32_t layout_index = 0;              // while live
  const std::type_info* rtti = nullptr;  // null: of another process, and never used in this one
  alignas(std::span<const char>) std::array<std::byte, sizeof(std::span<const char>)> span{};
};

using Records = std::unordered_map<std::uint32_t, Record>;
Records& records();
Record* find_record(internal::RefBits bits);
Record* find_live(std::string_view name);
Record* find_lost(std::string_view name);

// Adds a record and, if it is live, shows it in the layout.  Replaces a lost record of the same
// generation.
Record& enter(Record entered);
// Removes a record, so that neither references nor its name find it.  Returns the next record.
Records::iterator release(Records::iterator record);

// Puts the object into its slot if that is free.  Returns the address that a Ref gives.
const void* fill_slot(Record& record, const internal::TypeInfo& type);

std::uint64_t tree_bits();  // of this process's tree, as references have them
internal::RefBits bits_of(const Record& record);
std::uint64_t fingerprint_of(const internal::TypeInfo& type);
bool has_type(const Record& record, const internal::TypeInfo& type);
// Whether the object may hold pointers to another program's code.
bool has_foreign_code(const Record& record);

// A generation whose slot is free.  No other process of the tree gets the same one.  Error:
// invalid_argument, if the registry is full.
Expected<std::uint32_t> take_generation();
tl::unexpected<Error> full_error();

extern std::uint32_t live_count;  // live records
extern std::array<std::uint32_t, internal::kMaxPublished> newest;

}  // namespace cowshed::registry
