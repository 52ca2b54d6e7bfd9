#pragma once

#include <cstdint>
#include <memory>
#include <sys/types.h>

#include <cowshed/base/error.h>

namespace cowshed::test {

// The kernel's own function for writes to pages that are there and may not be written to, counted
// at its entry (fentry): an oracle of the sum of what it decides, be it a copy, a reuse or a
// notification.  Needs root and a kernel that lets fentry programs in; many locked-down ones do
// not. Counts from load() until it is destroyed.
class WpFaults {
 public:
  static Expected<WpFaults> load();
  WpFaults(WpFaults&&) noexcept;
  WpFaults& operator=(WpFaults&&) noexcept;
  ~WpFaults();

  // Of a whole process, alive or not.  `process` is a PID of the machine's own PID namespace.
  std::uint64_t count(pid_t process) const;

 private:
  struct State;
  explicit WpFaults(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cowshed::test
