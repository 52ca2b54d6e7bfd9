// A program that shares and copies a known number of pages.
//
//   copy_subject PAGES CHILDREN COPIES [LINGER_MS [EXIT_STATUS]]
//
// Maps and fills PAGES, forks CHILDREN, each of which writes to COPIES of them, stays for LINGER_MS
// and exits with EXIT_STATUS + its number.  Prints the children's PIDs, one per line, once it has
// forked them all.

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char** argv) {
  const auto argument = [&](int i, long otherwise) {
    return i < argc ? std::strtol(argv[i], nullptr, 10) : otherwise;
  };
  const long pages = argument(1, 0);
  const long children = argument(2, 0);
  const long copies = argument(3, 0);
  const long linger_ms = argument(4, 0);
  const long exit_status = argument(5, 0);
  constexpr long kPageSize = 4096;

  ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  const auto size = static_cast<std::size_t>((pages + 1) * kPageSize);
  void* mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return EXIT_FAILURE;
  auto* memory = static_cast<volatile char*>(mapped);
  for (long i = 0; i < pages; ++i) memory[i * kPageSize] = 1;

  for (long child = 0; child < children; ++child) {
    const pid_t pid = ::fork();
    if (pid < 0) return EXIT_FAILURE;
    if (pid == 0) {
      for (long i = 0; i < copies; ++i) memory[i * kPageSize] = 2;
      if (linger_ms > 0) ::usleep(static_cast<useconds_t>(linger_ms * 1000));
      ::_exit(static_cast<int>(exit_status + child));
    }
    std::printf("%d\n", pid);
  }
  std::fflush(stdout);
  while (::wait(nullptr) > 0) {
  }
  return 0;
}
