#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

// What can watch a process's faults, one at a time.
namespace cowshed::bench {

// Watching from construction to stop().
class Observer {
 public:
  Observer() = default;
  virtual ~Observer() = default;
  Observer(const Observer&) = delete;
  Observer& operator=(const Observer&) = delete;

  // Nothing of it is left in the kernel afterwards.  Returns the faults that it has counted.
  // Throws std::runtime_error when it has failed.
  virtual std::uint64_t stop() = 0;
};

struct ObserverKind {
  std::string name;
  std::string setting;  // the exact call, for a report
  bool counts;          // stop() has every copy
  std::unique_ptr<Observer> (*watch)(pid_t pid);
};

// "none", "empty programs" and "cowtop".
std::vector<ObserverKind> observers();

// Why none but "none" can run here, as root they can; empty otherwise.
std::string cannot_observe();

}  // namespace cowshed::bench
