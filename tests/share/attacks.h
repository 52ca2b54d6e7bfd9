#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

// What a process may try against an arena's memory, and what must come of it.
namespace cowshed::test {

// Whose view of the arena's bytes differs afterwards.
enum class Effect : std::uint8_t { nothing, own_view, victims_view, all };

struct Outcome {
  int error = 0;   // errno of the call that decides, 0 when it was allowed
  int signal = 0;  // that ended the attacker
  Effect effect = Effect::nothing;
};

std::string to_string(const Outcome& outcome);

// Which of them is seen may depend on the kernel's age; where there are two the reason is beside.
using Outcomes = std::vector<Outcome>;

inline Outcome refused(int error) { return {error, 0, Effect::nothing}; }
inline Outcome allowed(Effect effect) { return {0, 0, effect}; }
inline Outcome dies(int signal) { return {0, signal, Effect::nothing}; }

// What the attacker has to work with.  Its own mapping is the inherited one of a frozen arena; of
// an arena that is not frozen it is a shared, writable one of the re-opened descriptor.
struct Target {
  std::byte* address = nullptr;  // of the words, 2 MiB aligned, in every process
  std::size_t size = 0;          // of the words
  off_t offset = 0;              // of the words in the file
  std::uint32_t first_word = 0;  // the word at index i is first_word + i
  int fd = -1;                   // re-opened for reading and writing through /proc/PID/fd/N
  int inherited = -1;            // the owner's; of an arena that is not frozen the same as `fd`
  int owners_fd = -1;            // its number in the owner
  pid_t owner = 0;
  pid_t victim = 0;  // a sibling of the attacker that maps the arena
};

// What this process may do to others of the same user, and to itself.
struct Privileges {
  bool ptrace = false;     // attach to a sibling
  bool map_files = false;  // follow /proc/PID/map_files (CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN)
  bool nice = false;       // process_madvise (CAP_SYS_NICE)

  static Privileges of_this_process();
};

struct Attack {
  std::string name;
  // Runs in a process of its own.  Returns the errno of the call that decides, or 0; throws what
  // says why when the machine does not have the means.
  int (*run)(const Target& target);
  Outcomes strict;
  Outcomes lenient;
  Outcomes unfrozen;
};

std::vector<Attack> attacks_on_the_mapping();
std::vector<Attack> attacks_on_the_file(Privileges may);
std::vector<Attack> attacks_through_the_kernel();  // calls that store into the caller's memory
std::vector<Attack> attacks_on_a_sibling(Privileges may);

// Lends the words to an io_uring, which goes on holding their pages when they are unmapped.  What
// it returns reads a page into them, by the io_uring alone: an errno, or 0.
std::function<int()> hold_for_a_later_write(const Target& target);

// What the attacks have in common:

inline int error_of(long result) { return result == -1 ? errno : 0; }

// Throws, with `what` and the errno, when a call fails that is only a preparation.
long need(long result, const char* what);

// System calls that newer kernels have, and those that sanitizers would not let through as they
// are.
void* raw_mmap(void* address, std::size_t size, int protection, int flags, int fd, off_t offset);

constexpr std::size_t kPayloadSize = 4096;
const std::byte* payload();  // a page of bytes that the arena has nowhere
int payload_file();          // holds them
int payload_pipe();          // the reading end of a pipe that holds them

int store(void* to);                                  // by the processor
int store_if_mapped(void* mapped, off_t offset = 0);  // the same, or the errno of a failed mmap

}  // namespace cowshed::test
