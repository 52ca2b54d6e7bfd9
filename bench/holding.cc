#include "holding.h"

#include <algorithm>
#include <stdexcept>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

#include "family.h"
#include "machine.h"

namespace cowshed::bench {
namespace {

constexpr std::size_t kPageWords = 4096 / sizeof(std::uint64_t);
constexpr std::size_t kPlaces = 64;

std::uint64_t word_at(std::size_t index) { return (index + 1) * 0x9e3779b97f4a7c15U; }

template <class Word>
std::uint64_t sum(std::size_t count, Part part, Word word) {
  const std::size_t step =
      part == Part::each_page ? kPageWords : std::max(count / kPlaces, kPageWords);
  std::uint64_t result = 0;
  for (std::size_t i = 0; i < count; i += step) result += word(i);
  return result;
}

void fill(std::span<std::uint64_t> words) {
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = word_at(i);
}

}  // namespace

std::uint64_t sum_of(WordsOfData words, Part part) {
  return sum(words.size(), part, [&](std::size_t i) { return words[i]; });
}
std::uint64_t expected_sum(std::size_t bytes, Part part) {
  return sum(bytes / sizeof(std::uint64_t), part, word_at);
}

Holding::Holding(const std::string& memory, std::size_t bytes) : memory_(memory) {
  const std::size_t count = bytes / sizeof(std::uint64_t);
  if (memory == "heap" || memory == "memfd") use_small_pages();
  if (memory == "arena") {
    arena_ = got(Arena::create({.name = "bench", .capacity = bytes + bytes / 4 + 4_MiB}));
    const std::span words(static_cast<std::uint64_t*>(arena_->allocate(bytes)), count);
    fill(words);
    ref_ = got(publish(words));
    got(arena_->freeze());
    words_ = words;
  } else if (memory == "memfd") {
    memfd_ = memfd_create("bench", MFD_CLOEXEC);
    void* mapped = MAP_FAILED;
    if (ftruncate(memfd_, static_cast<off_t>(bytes)) == 0)
      mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd_, 0);
    if (mapped == MAP_FAILED) throw std::runtime_error("no memory in a memfd");
    const std::span words(static_cast<std::uint64_t*>(mapped), count);
    fill(words);
    words_ = words;
  } else if (memory != "none") {
    heap_.resize(count);
    fill(heap_);
    words_ = heap_;
    expect_pages(memory == "huge", bytes);
  }
  if (sum_of(words_, Part::each_page) != expected_sum(words_.size_bytes(), Part::each_page))
    throw std::runtime_error("the data is not what was written");
}

}  // namespace cowshed::bench
