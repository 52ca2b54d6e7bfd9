#pragma once

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <string>

// The data that a subject holds: `bytes` of one array, or of linked 48-byte objects.  It is never
// given back: the process ends.
namespace cowshed::bench {

class Dataset {
 public:
  // `layout` is "array" or "objects"; nothing at all for 0 bytes.
  Dataset(std::pmr::memory_resource& memory, const std::string& layout, std::size_t bytes);

  // Reads all of it; throws std::runtime_error when it is not what was written.
  void check() const;
  // The same in a forked child.
  void check_in_child() const;

 private:
  struct Node;

  std::uint64_t sum() const;

  std::uint64_t* words_ = nullptr;  // the array
  Node* last_ = nullptr;            // the objects
  std::size_t count_ = 0;
  std::uint64_t expected_ = 0;
};

}  // namespace cowshed::bench
