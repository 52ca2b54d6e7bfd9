#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <cowshed/base/published_layout.h>

// Writes this process's published layout (base/published_layout.h), which tools read from outside.
// If the layout cannot be made, these functions do nothing.  The caller holds
// process_tree::mutex(), except where noted.
namespace cowshed::layout {

// Makes the layout, unless this process has one or has inherited its parent's.
void create();

// Returns how often arenas and objects have changed.  Needs no mutex.
std::uint64_t changes() noexcept;

void put_arena(std::uint32_t index, const Arena& arena);
void clear_arena(std::uint32_t index);

// Uses the first vacant entry, so that few pages are touched.  Returns its index.  The caller
// ensures that there are fewer than kMaxObjects.
std::uint32_t put_object(const Object& object);
void clear_object(std::uint32_t index);

// Returns the published object that has the address, if it has a name; else null.  Takes no lock;
// async-signal-safe.
const Object* object_at(std::uint64_t address) noexcept;

inline constexpr std::uint32_t kMaxTransfers = 1024;
inline constexpr std::uint32_t kTransferLanes = 64;
using TransferLane = std::array<TransferCount, kMaxTransfers>;  // whole pages

// In the layout, or in ordinary memory if there is none.  Needs no mutex.
struct TransferTables {
  alignas(4096) std::array<Transfer, kMaxTransfers> transfers;
  alignas(4096) std::array<TransferLane, kTransferLanes> lanes;
};
TransferTables& transfer_tables();

// Sets how many entries are complete.  Both numbers only grow.
void show_transfers(std::uint32_t transfers);
void show_transfer_lanes(std::uint32_t lanes);

// Copies as much of the text as fits.
template <std::size_t size>
void set_text(std::array<char, size>& field, std::string_view text) {
  text.copy(field.data(), size);
}
template <std::size_t size>
std::string text_of(const std::array<char, size>& field) {
  return {field.begin(), std::find(field.begin(), field.end(), '\0')};
}

}  // namespace cowshed::layout
