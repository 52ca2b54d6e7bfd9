#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include <vector>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

// What the fuzzers and their own mutators share.
namespace cowshed::fuzz {

inline void must(bool condition) {
  if (!condition) std::abort();
}

struct Part {
  std::size_t begin;
  std::size_t end;
};

// Numbers at which a check of a size or an offset may go wrong.
inline std::uint64_t extreme_number(std::minstd_rand& random) {
  constexpr std::array<std::uint64_t, 7> kBases = {0,
                                                   4096,
                                                   1U << 21U,
                                                   std::uint64_t{1} << 32U,
                                                   std::uint64_t{1} << 47U,
                                                   std::uint64_t{1} << 63U,
                                                   -std::uint64_t{4096}};
  const std::uint64_t base = kBases[random() % kBases.size()];
  return random() % 2 == 0 ? base : base + random() % 5 - 2;
}

// Changes one of the parts, as far as the input has it: by libFuzzer's own means, without moving
// what follows, or puts an extreme number there.  Returns the new size.
inline std::size_t mutate(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed,
                          const std::vector<Part>& parts) {
  std::minstd_rand random(seed);
  Part part = parts[random() % parts.size()];
  part.end = std::min(part.end, size);
  if (part.begin >= part.end || random() % 16 == 0)
    return LLVMFuzzerMutate(data, size, most);  // shorter or longer, perhaps
  const std::size_t bytes = part.end - part.begin;
  if (random() % 2 == 0 && bytes >= sizeof(std::uint64_t)) {
    const std::uint64_t number = extreme_number(random);
    const std::size_t place = random() % (bytes / sizeof(number)) * sizeof(number);
    std::memcpy(data + part.begin + place, &number, sizeof(number));
  } else {
    LLVMFuzzerMutate(data + part.begin, bytes, bytes);
  }
  return size;
}

}  // namespace cowshed::fuzz
