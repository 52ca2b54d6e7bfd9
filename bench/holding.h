#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>

// Data that a process holds and its workers read.
namespace cowshed::bench {

using WordsOfData = std::span<const std::uint64_t>;

// One array, checked when it is made.  `memory` is
//   none   nothing
//   arena  a frozen arena in 2 MiB pages
//   heap   glibc's malloc, in 4 KiB pages
//   huge   glibc's malloc, in 2 MiB pages by GLIBC_TUNABLES=glibc.malloc.hugetlb=1
//   memfd  a memfd mapped MAP_SHARED, in 4 KiB pages: sharing by hand
class Holding {
 public:
  Holding(const std::string& memory, std::size_t bytes);

  const std::string& memory() const { return memory_; }
  WordsOfData words() const { return words_; }
  const std::vector<std::uint64_t>& heap() const { return heap_; }  // heap and huge
  const Ref<WordsOfData>& ref() const { return ref_; }              // arena
  int memfd() const { return memfd_; }                              // memfd, else -1

 private:
  std::string memory_;
  std::optional<Arena> arena_;
  std::vector<std::uint64_t> heap_;
  int memfd_ = -1;
  WordsOfData words_;
  Ref<WordsOfData> ref_;
};

// The sum of 64 words, evenly spaced, or of one in each page of 4 KiB.
enum class Part : std::uint8_t { some, each_page };
std::uint64_t sum_of(WordsOfData words, Part part);
std::uint64_t expected_sum(std::size_t bytes, Part part);

}  // namespace cowshed::bench
