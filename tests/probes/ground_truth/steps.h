#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <iterator>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

// What ground_truth_subject can do N times: its kinds, and what they consist of.  Nothing here
// allocates, so that a run for N = 0 differs from another by nothing but what is done N times.
namespace ground_truth {

// All kinds are in a list, in no particular order.
struct Kind {
  Kind(std::string_view its_name, void (*does)()) : name(its_name), run(does), next(first) {
    first = this;
  }

  std::string_view name;
  void (*run)();
  const Kind* next;
  static inline const Kind* first = nullptr;
};

// KIND(name) { ... } is what `ground_truth_subject name N` does.
#define KIND(name)                     \
  void name();                         \
  const Kind name##_kind(#name, name); \
  void name()

inline constexpr std::size_t kPage = 4096;

extern long count;  // N
extern char* program;

[[noreturn]] void fail(const char* what);
void print(const char* word, long number);
// Becomes `ground_truth_subject kind number`.
[[noreturn]] void execute(const char* kind, const char* number);

inline std::size_t bytes() { return static_cast<std::size_t>(count + 1) * kPage; }
inline char* page_of(char* pages, long i) { return pages + static_cast<std::size_t>(i) * kPage; }
inline void store(char* at) { *static_cast<volatile char*>(at) = 1; }

// N + 1 small pages: the last keeps the mapping from being empty, and nobody counts on it.
char* map(int protection, int flags, int fd = -1);
char* private_pages();
char* small_pages(std::size_t size);  // private ones, of another number of bytes
char* written_private_pages();

void write_some(char* pages, long number);
void write_all(char* pages);
void* write_all_of(void* pages);  // the same, as what a thread does
void read_all(const char* pages);

inline constexpr std::size_t kHuge = std::size_t{2} << 20;

// N huge pages in an aligned range, not touched yet.
char* huge_pages();
// One store to every `stride` bytes of N huge pages.
void touch_each(char* huge, std::size_t stride);

// Of the size of such a mapping, without a name.
int disk_file();
int memory_file(const char* name);
int filled_memory_file(const char* name);

// Says that all is done, and waits for the end.
void finish_measured();

template <class Work>
void measured(Work work) {
  print("measured", getpid());
  work();
  finish_measured();
}

void await(pid_t child);
pthread_t start_thread(void* (*run)(void*), void* argument = nullptr);
void run_on_cpu(int cpu);

// Writes to 64 KiB of the stack below this frame.  A child calls it before it is measured, for
// every N: a signal's frame, whose size depends on the processor, then lands on pages that are its
// own already.
void own_the_stack();

// Most kinds: the child is measured while its parent blocks in waitpid.
template <class Work>
void in_child(Work work) {
  const pid_t child = fork();
  if (child == 0) {
    own_the_stack();
    measured(work);
    _exit(0);
  }
  await(child);
}

// In a child that is not the measured one, or forks itself: taskstats also counts what the root
// copied before its exec.
template <class Scenario>
void one_down(Scenario scenario) {
  const pid_t child = fork();
  if (child == 0) {
    scenario();
    _exit(0);
  }
  await(child);
}

// A child that shares what its parent has now, and does nothing.
class Sharer {
 public:
  Sharer();
  ~Sharer();
  Sharer(const Sharer&) = delete;
  Sharer& operator=(const Sharer&) = delete;

 private:
  pid_t pid_;
};

// The child becomes the last sharer of these `size` bytes before it works on them.
template <class Work>
void as_last_sharer(char* pages, std::size_t size, Work work) {
  const pid_t child = fork();
  if (child == 0) {
    sched_yield();  // the parent blocks in waitpid, without the pages
    measured([=] { work(pages); });
    _exit(0);
  }
  munmap(pages, size);
  await(child);
}

}  // namespace ground_truth
