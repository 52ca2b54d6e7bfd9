#pragma once

#include <cstddef>
#include <string>
#include <sys/types.h>

namespace cowshed::bench {

// What a subject holds when it forks.
enum class Holds { arena, nothing, heap };

// A long-lived process that holds `bytes` in small objects and forks when told to: this executable
// again, so that every subject starts afresh.
class Subject {
 public:
  Subject(Holds holds, std::size_t bytes);
  ~Subject();
  Subject(const Subject&) = delete;
  Subject& operator=(const Subject&) = delete;

  double fork_ns();  // one fork(): how long the call took in the parent
  double huge_share() const { return huge_share_; }  // of the arena, in 2 MiB pages

 private:
  double read_number();

  pid_t pid_ = 0;
  int to_ = -1;
  int from_ = -1;
  double huge_share_ = 0;
};

// The other side, run by main() when it was started as a subject; the exit code.
int run_subject(const std::string& holds, std::size_t bytes);

}  // namespace cowshed::bench
