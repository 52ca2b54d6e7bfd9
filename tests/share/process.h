#pragma once

#include <cstddef>
#include <stdexcept>
#include <sys/mman.h>

#include <cowshed/tests/support/child.h>

namespace cowshed::test {

using Process = Child;

// Zeroed memory that forked children share with the test.
inline void* shared_memory(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("no shared memory");
  return memory;
}
template <class T>
T& shared() {
  return *static_cast<T*>(shared_memory(sizeof(T)));
}

}  // namespace cowshed::test
