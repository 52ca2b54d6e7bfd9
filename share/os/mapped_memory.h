#pragma once

#include <cstdint>
#include <memory>
#include <sys/mman.h>

namespace cowshed::internal {

struct Unmap {
  std::uint64_t bytes;
  void operator()(void* memory) const { munmap(memory, bytes); }
};

// Memory that is unmapped with its owner.
using MappedMemory = std::unique_ptr<void, Unmap>;

}  // namespace cowshed::internal
