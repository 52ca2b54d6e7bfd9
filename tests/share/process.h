#pragma once

#include <deque>

#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {

// `count` children, each of which runs body(its number).
template <class Number, class Body>
std::deque<Child> begin_processes(Number count, const Body& body) {
  std::deque<Child> processes;
  for (Number i = 0; i < count; ++i) processes.emplace_back([&] { return body(i); });
  return processes;
}
inline void expect_success(std::deque<Child>& processes) {
  for (Child& process : processes) EXPECT_EQ(process.wait(), 0);
}

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
