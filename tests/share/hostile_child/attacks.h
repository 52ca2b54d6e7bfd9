#pragma once

#include <cowshed/tests/support/test.h>

// What a process may try against an arena's memory, and what must come of it.
namespace cowshed::test {

// Whose view of the arena's bytes differs afterwards.
enum class Effect : std::uint8_t { nothing, own_view, victims_view, all };

struct Outcome {
  int error = 0;   // errno of the call that decides, 0 when it was allowed
  int signal = 0;  // that ended the attacker
  Effect effect = Effect::nothing;
  bool operator==(const Outcome&) const = default;
};

std::string to_string(const Outcome& outcome);

// Which of them is seen may depend on the kernel's age; where there are two the reason is beside.
using Outcomes = std::vector<Outcome>;

inline Outcomes refused(int error) { return {{error, 0, Effect::nothing}}; }
inline Outcomes allowed(Effect effect) { return {{0, 0, effect}}; }
inline Outcomes dies(int signal) { return {{0, signal, Effect::nothing}}; }
inline Outcomes operator|(Outcomes one, const Outcomes& other) {
  one.insert(one.end(), other.begin(), other.end());
  return one;
}

// What the attacker has to work with.  Its own mapping is the inherited one of a frozen arena; of
// an arena that is not frozen it is a shared, writable one of the re-opened descriptor.
struct Target {
  std::byte* address = nullptr;  // of the words, 2 MiB aligned, in every process
  std::size_t size = 0;          // of the words
  off_t offset = 0;              // of the words in the file
  int fd = -1;                   // re-opened for reading and writing through /proc/PID/fd/N
  int inherited = -1;            // the owner's; of an arena that is not frozen the same as `fd`
  int owners_fd = -1;            // its number in the owner
  pid_t owner = 0;
  pid_t victim = 0;  // a sibling of the attacker that maps the arena
};

struct Attack {
  std::string name;
  Outcomes strict;
  // Runs in a process of its own.  -1, and errno, where the call that decides is refused; throws
  // what says why when the machine does not have the means.
  std::function<long(const Target&)> run;
  Outcomes lenient = strict;
};

std::vector<Attack> all_attacks();

// Lends the words to an io_uring, which goes on holding their pages when they are unmapped.  What
// it returns reads a page into them, by the io_uring alone; -1 where it cannot.
std::function<long()> hold_for_a_later_write(const Target& target);

std::string fd_path(pid_t pid, int fd);

// A system call, which sanitizers would not let through as it is.
void* raw_mmap(void* address, std::size_t size, int protection, int flags, int fd, off_t offset);

}  // namespace cowshed::test
