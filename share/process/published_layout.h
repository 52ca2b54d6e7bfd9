#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <cowshed/base/published_layout.h>

// This process's published layout (base/published_layout.h): what it shows to those who look at it
// from outside.  Where it cannot be made, all of this does nothing.
//
// The caller holds process_tree::mutex(), unless said otherwise.
namespace cowshed::layout {

// Maps it, unless this process has one or inherited its parent's.
void create();

// How often what follows was called, so that one can tell whether anything is new.  Needs no mutex.
std::uint64_t changes() noexcept;

void put_arena(std::uint32_t index, const Arena& arena);
void clear_arena(std::uint32_t index);

// Takes the first vacant entry, so that no more pages are touched than the most objects at a time
// need, and returns its index.  There are kMaxObjects.
std::uint32_t put_object(const Object& object);
void clear_object(std::uint32_t index);

// The published object with a name that `address` lies in, or null.  For signal handlers: takes no
// lock.
const Object* object_at(std::uint64_t address) noexcept;

inline constexpr std::uint32_t kMaxTransfers = 1024;
inline constexpr std::uint32_t kTransferLanes = 64;
using TransferLane = std::array<TransferCount, kMaxTransfers>;  // whole pages

// In the layout, or ordinary memory where there is none.  No lock of the layout's is needed to
// write to them.
struct TransferTables {
  alignas(4096) std::array<Transfer, kMaxTransfers> transfers;
  alignas(4096) std::array<TransferLane, kTransferLanes> lanes;
};
TransferTables& transfer_tables();

// How much of them is used, to be called when entries are complete.  Both only grow.
void show_transfers(std::uint32_t transfers);
void show_transfer_lanes(std::uint32_t lanes);

// As much of `text` as fits.
template <std::size_t size>
void set_text(std::array<char, size>& field, std::string_view text) {
  text.copy(field.data(), size);
}
template <std::size_t size>
std::string text_of(const std::array<char, size>& field) {
  return {field.begin(), std::find(field.begin(), field.end(), '\0')};
}

}  // namespace cowshed::layout
