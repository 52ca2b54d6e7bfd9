#pragma once

#include <functional>
#include <vector>

namespace cowshed {

// File descriptors that live above the soft limit of the process (RLIMIT_NOFILE), so that they take
// none of its numbers: a program that opens two for each CPU would else run out of them near 500
// CPUs.  Move-only; they are closed at the end.
class HighDescriptors {
 public:
  HighDescriptors() = default;
  HighDescriptors(HighDescriptors&& other) noexcept { descriptors_.swap(other.descriptors_); }
  HighDescriptors& operator=(HighDescriptors&& other) noexcept {
    descriptors_.swap(other.descriptors_);
    return *this;
  }
  ~HighDescriptors();

  // Keeps what `open` returns: a descriptor, or a negative error number.  Returns 0, or the error.
  // The soft limit is raised for a moment; as far as the hard limit is reached, the descriptor
  // stays where it is.
  int add(const std::function<int()>& open);
  bool is_empty() const { return descriptors_.empty(); }

 private:
  std::vector<int> descriptors_;
};

}  // namespace cowshed
