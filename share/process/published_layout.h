#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/published_layout.h>

// Writes this process's published layout (base/published_layout.h), which cowtop reads from
// outside. If the layout cannot be created, these functions do nothing.
//
// Threads: the caller holds process_tree::mutex(), unless a comment says otherwise.  Fork: a child
// has a private copy.
namespace cowshed::layout {

// Maps the layout, unless this process has one or inherited one.
void create();

// The number of changes to arenas and objects so far.  Needs no mutex.
std::uint64_t changes() noexcept;

// Adds to the bytes of settled memory, and shows them.
void add_settled_bytes(std::int64_t bytes);

void put_arena(std::uint32_t index, const Arena& arena);
void clear_arena(std::uint32_t index);

// Returns the index of the new entry: the lowest vacant one, so that few pages are touched.  The
// caller sees to it that there are at most COWSHED_MAX_OBJECTS.
std::uint32_t put_object(const Object& object);
void clear_object(std::uint32_t index);

// Returns the object with a name that contains `address`, or null.  Takes no lock, so signal
// handlers may call it.
const Object* object_at(std::uint64_t address) noexcept;
// Returns the object with a name in this range if there is one alone, else null.  So, too.
const Object* only_object_in(std::uint64_t begin, std::uint64_t end) noexcept;

inline constexpr std::uint32_t kMaxTransfers = 1024;
inline constexpr std::uint32_t kTransferLanes = 64;
using TransferLane = std::array<TransferCount, kMaxTransfers>;  // whole pages

// Lie in the layout, or in ordinary memory if there is none.  Writing to them needs no mutex.
struct TransferTables {
  alignas(arch::kLargestPage) std::array<Transfer, kMaxTransfers> transfers;
  alignas(arch::kLargestPage) std::array<TransferLane, kTransferLanes> lanes;
};
TransferTables& transfer_tables();

// Sets the number of entries in use, of `transfers` or `transfer_lanes`, after the entries are
// complete.  The number only grows.  Needs no mutex.
void show_count(Table Header::* table, std::uint32_t count);

// Stores as much of `text` as fits.
inline void set_text(std::span<char> field, std::string_view text) {
  text.copy(field.data(), field.size());
}
inline std::string text_of(std::span<const char> field) {
  return {field.begin(), std::ranges::find(field, '\0')};
}

}  // namespace cowshed::layout
