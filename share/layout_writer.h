#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <cowshed/base/published_layout.h>

// This process's published layout (base/published_layout.h): what it shows to those who look at it
// from outside.  Nothing in share/ depends on it: where it cannot be made, all of this does
// nothing.
//
// The caller holds registry::mutex().
namespace cowshed::layout {

// Maps it, unless this process has one or inherited its parent's.
void create();

void put_arena(std::uint32_t index, const Arena& arena);
void clear_arena(std::uint32_t index);

// Takes the first vacant entry, so that no more pages are touched than the most objects at a time
// need, and returns its index.  There are internal::kMaxPublished.
std::uint32_t put_object(const Object& object);
void clear_object(std::uint32_t index);

// As much of `text` as fits.
template <std::size_t size>
void set_text(std::array<char, size>& field, std::string_view text) {
  text.copy(field.data(), size);
}

}  // namespace cowshed::layout
