// A program whose processes share and copy known numbers of pages.
//
//   copy_subject PAGES CHILDREN COPIES [LINGER_MS [EXIT_STATUS]]
//
// Maps and fills PAGES, forks CHILDREN, each of which writes to COPIES of them, stays for LINGER_MS
// and exits with EXIT_STATUS + its number.  Prints the children's PIDs, one per line, once it has
// forked them all.
//
//   copy_subject KIND PAGES LINGER_MS
//
// parent_first, child_first  two processes write to the same PAGES, one after the other
// exec                       a child writes to PAGES, execs, and writes to as many of a file
// nested                     two workers write to PAGES each, and so do two children each
//
// Each waits for LINGER_MS after each step, so that it can be looked at.

#include <cstdio>
#include <cstdlib>
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
  void* mapped = ::mmap(nullptr, static_cast<std::size_t>((pages + 1) * kPageSize),
                        PROT_READ | PROT_WRITE, flags, fd, 0);
  if (mapped == MAP_FAILED) std::exit(EXIT_FAILURE);
  return static_cast<volatile char*>(mapped);
}

void write_to(volatile char* memory, long count = pages) {
  for (long i = 0; i < count; ++i)
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

int exec_between_writes(volatile char* memory, char** arguments) {
  if (::fork() == 0) {
    write_to(memory);
    linger();
    std::string after = "after_exec";
    arguments[1] = after.data();
    ::execv("/proc/self/exe", arguments);
    return EXIT_FAILURE;
  }
  wait_for_all();
  return EXIT_SUCCESS;
}

int write_after_exec() {
  const int fd = ::memfd_create("file", MFD_CLOEXEC);
  if (::ftruncate(fd, pages * kPageSize) != 0) return EXIT_FAILURE;
  write_to(map(fd, MAP_PRIVATE));
  linger();
  return EXIT_SUCCESS;
}

void copy_in_children(volatile char* memory, long children, long copies, long exit_status) {
  for (long child = 0; child < children; ++child) {
    const pid_t pid = ::fork();
    if (pid < 0) std::exit(EXIT_FAILURE);
    if (pid == 0) {
      write_to(memory, copies);
      linger();
      ::_exit(static_cast<int>(exit_status + child));
    }
    std::printf("%d\n", pid);
  }
  std::fflush(stdout);
  wait_for_all();
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int i) { return i < argc ? std::strtol(argv[i], nullptr, 10) : 0; };
  const std::string kind = argc > 1 ? argv[1] : "";
  const bool is_kind = kind.find_first_not_of("0123456789") != std::string::npos;
  pages = argument(is_kind ? 2 : 1);
  linger_ms = argument(is_kind ? 3 : 4);
  ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  if (kind == "after_exec") return write_after_exec();
  volatile char* memory = map(-1, MAP_PRIVATE | MAP_ANONYMOUS);
  write_to(memory);
  if (kind == "parent_first" || kind == "child_first") two_writers(memory, kind == "parent_first");
  if (kind == "nested") nested(memory, 2);
  if (kind == "exec") return exec_between_writes(memory, argv);
  if (!is_kind) copy_in_children(memory, argument(2), argument(3), argument(5));
  return EXIT_SUCCESS;
}
