#include "dataset.h"

#include <array>
#include <cerrno>
#include <new>
#include <stdexcept>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

namespace cowshed::bench {
namespace {

std::uint64_t mix(std::uint64_t index) { return (index + 1) * 0x9e3779b97f4a7c15U; }

}  // namespace

struct Dataset::Node {
  Node* previous;
  std::array<std::uint64_t, 5> values;
};

Dataset::Dataset(std::pmr::memory_resource& memory, const std::string& layout, std::size_t bytes) {
  static_assert(sizeof(Node) == 48);
  if (bytes == 0) return;
  if (layout == "array") {
    count_ = bytes / sizeof(std::uint64_t);
    words_ = static_cast<std::uint64_t*>(memory.allocate(bytes, alignof(std::max_align_t)));
    for (std::size_t i = 0; i < count_; ++i) words_[i] = mix(i);
  } else {
    count_ = bytes / sizeof(Node);
    for (std::size_t i = 0; i < count_; ++i) {
      void* block = memory.allocate(sizeof(Node), alignof(Node));
      last_ = new (block) Node{last_, {mix(i), 0, 0, 0, ~mix(i)}};
    }
  }
  for (std::size_t i = 0; i < count_; ++i) expected_ += mix(i);
}

std::uint64_t Dataset::sum() const {
  std::uint64_t result = 0;
  if (words_ != nullptr)
    for (std::size_t i = 0; i < count_; ++i) result += words_[i];
  for (const Node* node = last_; node != nullptr; node = node->previous) {
    if (node->values[0] != ~node->values[4]) return 0;
    result += node->values[0];
  }
  return result;
}

void Dataset::check() const {
  if (sum() != expected_) throw std::runtime_error("the data is not what was written");
}

void Dataset::check_in_child() const {
  const pid_t pid = fork();
  if (pid == 0) _exit(sum() == expected_ ? 0 : 1);
  int status = 0;
  if (pid < 0 || waitpid(pid, &status, 0) != pid)
    throw std::system_error(errno, std::system_category(), "fork");
  if (status != 0) throw std::runtime_error("a child does not read what its parent wrote");
}

}  // namespace cowshed::bench
