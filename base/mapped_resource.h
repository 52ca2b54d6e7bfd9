#pragma once

#include <memory_resource>
#include <new>
#include <sys/mman.h>

namespace cowshed::internal {

// Memory from mmap(2), which is no block of malloc's.  `flags`: further ones, as MAP_POPULATE.
class MappedResource : public std::pmr::memory_resource {
 public:
  constexpr explicit MappedResource(int flags = 0) : flags_(flags) {}

 private:
  void* do_allocate(std::size_t size, std::size_t /*alignment*/) override {
    void* memory =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags_, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return memory;
  }
  void do_deallocate(void* memory, std::size_t size, std::size_t /*alignment*/) override {
    ::munmap(memory, size);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

  int flags_;
};

}  // namespace cowshed::internal
