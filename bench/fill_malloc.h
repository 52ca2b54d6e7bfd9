#pragma once

#include <cstddef>
#include <cstdlib>

namespace cowshed::bench {

// malloc and free, whoever provides them in this program.
struct Malloc {
  class Thread {
   public:
    explicit Thread(Malloc&) {}
    void* allocate(std::size_t size) { return std::malloc(size); }
    void deallocate(void* block, std::size_t) { std::free(block); }
  };
};

}  // namespace cowshed::bench
