#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <cowshed/cow/causes/store_decoder.h>
#include <cowshed/cow/language.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// A store, and the memory around it as it was before.
struct ObservedStore {
  const CopySample& sample;
  const StoreInstruction& store;

  // The aligned word of 8 bytes that is `distance` bytes from that with the address.
  std::optional<std::uint64_t> word(std::int64_t distance = 0) const;
  // The value at the address, of the store's width, before and after; nullopt: not known.
  std::optional<std::uint64_t> before() const;
  std::optional<std::uint64_t> after() const;
  // Whether the value grows or shrinks by 1.
  bool counts() const;
};

// Returns the cause that the object at the address shows, in a store by the code of `interpreter`;
// empty: it shows none.  The layouts are those of CPython 3.11 to 3.15, Ruby 3, PHP 8, Perl 5 and
// R 4.
std::string_view object_cause(Language interpreter, const ObservedStore& observed);

// Whether the memory around the address was read and shows that the store, for which
// object_cause() shows none, is no bookkeeping of the interpreter: it writes the program's data.
bool is_programs_data(Language interpreter, const ObservedStore& observed);

// Whether the address is a count of a control block, as std::shared_ptr and boost::shared_ptr have:
// a pointer to a vtable, between `begin` and `end`, and two counts of 4 bytes.
bool is_control_block(const ObservedStore& observed, std::uint64_t begin, std::uint64_t end);

// What may be that pointer; nullopt: the address is no count of a control block.
std::optional<std::uint64_t> vtable_of_control_block(const ObservedStore& observed);

}  // namespace cowshed::cow
