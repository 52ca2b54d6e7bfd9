#pragma once

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

// What programs share whose children copy pages in known ways: PROGRAM KIND PAGES [BYTES].  The
// kind "lines" prints functions and their lines.  With a third argument the program stops itself
// (SIGSTOP) when all is done, so that somebody can look at what it has mapped.
constexpr std::size_t kPage = 4096;

struct Kind {
  std::string_view name;
  void (*run)(std::size_t pages);
};

inline std::size_t bytes = 0;  // the third argument

template <class Work>
void in_child(Work work) {
  const pid_t child = fork();
  if (child < 0) std::abort();
  if (child == 0) {
    work();
    _exit(0);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) std::abort();
}

// Inlined, so that main() is on each stack.
template <class Kinds>
[[gnu::always_inline]] inline int run_kind(const Kinds& kinds, int argc, char** argv) {
  if (argc < 3) return EXIT_FAILURE;
  prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  if (argc > 3) bytes = std::strtoul(argv[3], nullptr, 10);
  for (const Kind& kind : kinds) {
    if (kind.name != argv[1]) continue;
    kind.run(std::strtoul(argv[2], nullptr, 10));
    if (argc > 3) raise(SIGSTOP);
    return 0;
  }
  return EXIT_FAILURE;
}
