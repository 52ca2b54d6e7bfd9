#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// What the dictionary of `sharing` holds and what is looked up in it, made from numbers alone, so
// that every rival has the same and one place knows the right answers.  sharing_python does the
// same arithmetic.
namespace cowshed::bench {

constexpr std::size_t kKeySize = 24;
constexpr std::size_t kEntryBytes = 256;  // of one in a flat buffer, on average

struct Entry {
  std::string key;
  std::string title;
  std::vector<std::uint32_t> links;
  std::uint64_t weight;
};

Entry make_entry(std::uint64_t number);

// Of all numbers in an entry, and enough of its text to tell it from another's.
inline std::uint64_t digest(std::string_view title, std::span<const std::uint32_t> links,
                            std::uint64_t weight) {
  std::uint64_t sum = weight;
  for (const std::uint32_t link : links) sum += link;
  const auto at = [&](std::size_t i) {
    return std::uint64_t{static_cast<unsigned char>(title[i])};
  };
  return sum + title.size() * 31 + at(0) + at(title.size() - 1);
}

// A fixed sequence of random keys, another for each worker and pass.
class Keys {
 public:
  struct Sequence {
    std::uint64_t worker;
    std::uint64_t pass;
  };
  Keys(Sequence sequence, std::uint64_t entries);

  std::uint64_t next_number() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return (state_ >> 33U) % entries_;
  }
  std::string_view next();  // the key of the next number; good until the next call

 private:
  std::uint64_t state_;
  std::uint64_t entries_;
  std::array<char, kKeySize> key_;
};

// The right answers, from no dictionary at all.
class Reference {
 public:
  explicit Reference(std::size_t entries);
  std::uint64_t answer(Keys::Sequence sequence, std::size_t look_ups) const;

 private:
  std::vector<std::uint64_t> digests_;  // by number
};

}  // namespace cowshed::bench
