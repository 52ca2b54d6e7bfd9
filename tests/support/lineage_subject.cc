// Programs whose processes share pages in known ways.
//
//   lineage_subject MODE N LINGER_MS
//
// parent_first, child_first  two processes write to the same N shared pages, one after the other
// exec                       a child writes to N shared pages, execs, and writes to N file pages
// nested                     two workers write to N shared pages each, and so do two children each
// brief                      N children that end at once, some ms apart, each waited for
//
// All wait for LINGER_MS after each step, so that they can be looked at.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

constexpr long kPageSize = 4096;
long pages;
long linger_ms;

volatile char* map(int fd, int flags) {
  void* mapped = ::mmap(nullptr, static_cast<std::size_t>(pages * kPageSize),
                        PROT_READ | PROT_WRITE, flags, fd, 0);
  if (mapped == MAP_FAILED) std::exit(EXIT_FAILURE);
  return static_cast<volatile char*>(mapped);
}

void write_to(volatile char* memory) {
  for (long i = 0; i < pages; ++i)
    memory[i * kPageSize] = static_cast<char>(memory[i * kPageSize] + 1);
}

void linger() { ::usleep(static_cast<useconds_t>(linger_ms * 1000)); }

void wait_for_all() {
  while (::wait(nullptr) > 0) {
  }
}

void two_writers(volatile char* memory, bool parent_first) {
  int turn[2];
  if (::pipe(turn) != 0) std::exit(EXIT_FAILURE);
  char byte = 0;
  const bool is_child = ::fork() == 0;
  const bool is_first = is_child != parent_first;
  if (!is_first && ::read(turn[0], &byte, 1) != 1) std::exit(EXIT_FAILURE);
  write_to(memory);
  linger();
  if (is_first && ::write(turn[1], &byte, 1) != 1) std::exit(EXIT_FAILURE);
  linger();
  if (is_first) linger();
  if (!is_child) wait_for_all();
}

void nested(volatile char* memory, int generations) {
  for (int i = 0; i < 2; ++i) {
    if (::fork() != 0) continue;
    write_to(memory);
    linger();
    if (generations > 1) nested(memory, generations - 1);
    linger();
    std::exit(EXIT_SUCCESS);
  }
  wait_for_all();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return EXIT_FAILURE;
  const std::string mode = argv[1];
  pages = std::strtol(argv[2], nullptr, 10);
  linger_ms = std::strtol(argv[3], nullptr, 10);
  ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  if (mode == "after_exec") {
    const int fd = ::memfd_create("file", MFD_CLOEXEC);
    if (::ftruncate(fd, pages * kPageSize) != 0) return EXIT_FAILURE;
    write_to(map(fd, MAP_PRIVATE));
    linger();
    return EXIT_SUCCESS;
  }
  volatile char* memory = map(-1, MAP_PRIVATE | MAP_ANONYMOUS);
  write_to(memory);
  if (mode == "parent_first" || mode == "child_first") two_writers(memory, mode == "parent_first");
  if (mode == "nested") nested(memory, 2);
  if (mode == "exec") {
    if (::fork() == 0) {
      write_to(memory);
      linger();
      ::execl("/proc/self/exe", argv[0], "after_exec", argv[2], argv[3], nullptr);
      return EXIT_FAILURE;
    }
    wait_for_all();
  }
  if (mode == "brief") {
    constexpr useconds_t kApartUs = 5000;
    for (long i = 0; i < pages; ++i) {
      if (::fork() == 0) ::_exit(0);
      ::wait(nullptr);
      ::usleep(kApartUs);
    }
    linger();
  }
  return EXIT_SUCCESS;
}
