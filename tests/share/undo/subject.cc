// A program that knows nothing of Cowshed: `subject WHAT`, below `cowshed run --undo --above 1MiB`.
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <map>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kBytes = 512 * kPage;

struct Row {
  int number;
  std::string text;
};
std::vector<std::shared_ptr<Row>> rows;

long own_kib() {
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string word; file >> word;)
    if (long kib = 0; word == "Anonymous:" && file >> kib) return kib;
  return 0;
}

// Counts each row's references up and down.
long read_rows() {
  long sum = 0;
  for (const auto& row : rows) {
    std::shared_ptr<Row> counted;
    counted = row;
    sum += counted->number + static_cast<long>(counted->text.size());
  }
  return sum;
}

int in_child(const std::function<void()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    work();
    std::fflush(stdout);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

void wait_until_undone() {
  const long sum = read_rows();
  const long before = own_kib();
  while (own_kib() > before / 3) {
    close_range(3, ~0U, 0);  // which are nobody's here
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::printf("%ld %ld %s\n", before, own_kib(), read_rows() == sum ? "right" : "wrong");
}

int undo_in(const std::function<void()>& worker) {
  for (int i = 0; i < 100'000; ++i)
    rows.push_back(std::make_shared<Row>(Row{i, "row number " + std::to_string(i)}));
  return in_child(worker);
}

int undo() {
  return undo_in([] {
    if (in_child(wait_until_undone) == 0) wait_until_undone();
  });
}

int undo_as_nobody() {
  return undo_in([] {
    if (setuid(65534) == 0) wait_until_undone();
  });
}

int undo_of_nobody() {
  return setuid(65534) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0 ? undo_in(wait_until_undone) : 1;
}

bool is_settled(const void* memory) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::size_t end = 0;
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    if (std::stoul(line, &end, 16) <= address &&
        address < std::stoul(line.substr(end + 1), nullptr, 16))
      return line.find("cowshed-settled") != line.npos;
  }
  return false;
}

unsigned char* full_memory() {
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  std::memset(memory, 7, kBytes);
  return static_cast<unsigned char*>(memory);
}

// The C library waits for each thread in setuid(), and ends the process with the last one.
int end_threads() {
  full_memory();
  return in_child([] {
    if (setuid(getuid()) != 0) _exit(1);
    std::puts("flushed");
    std::thread([] { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }).detach();
    pthread_exit(nullptr);
  });
}

// A handler may have interrupted malloc(): that of a crash, or one that is installed no more.
int fork_in_handler_of(int signal, int flags) {
  static const unsigned char* const memory = full_memory();
  static bool was_settled = false;
  struct sigaction action = {};
  action.sa_handler = [](int) {
    in_child([] {});
    was_settled = is_settled(memory);
  };
  action.sa_flags = flags;
  sigaction(signal, &action, nullptr);
  std::raise(signal);
  return in_child([] {}) == 0 && !was_settled && is_settled(memory) ? 0 : 1;
}

int crash() { return fork_in_handler_of(SIGSEGV, 0); }
int fork_in_the_last_handler() {
  return fork_in_handler_of(SIGUSR1, static_cast<int>(SA_RESETHAND));
}

// A handler that has interrupted malloc() may fork in a process with one thread.
int fork_in_handlers() {
  full_memory();
  static volatile int forks = 0;
  // Not at an interval, which may be shorter than a fork: the loop would stand still.
  static const itimerval once = {{}, {0, 1'000}};
  struct sigaction action = {};
  action.sa_handler = [](int) {
    if (const pid_t child = fork(); child == 0) _exit(0);
    else waitpid(child, nullptr, 0);
    forks = forks + 1;
    setitimer(ITIMER_REAL, &once, nullptr);
  };
  sigaction(SIGALRM, &action, nullptr);
  setitimer(ITIMER_REAL, &once, nullptr);
  std::vector<void*> blocks(1000);
  for (std::size_t i = 0; forks < 50; i = (i + 7) % blocks.size()) {
    std::free(blocks[i]);
    blocks[i] = std::malloc(i * 3);
  }
  return 0;
}

// A thread in a sandbox is ended by any other call.
int fork_beside_a_sandbox() {
  full_memory();
  std::array<int, 2> to{};
  std::array<int, 2> from{};
  if (pipe(to.data()) != 0 || pipe(from.data()) != 0) return 1;
  std::thread([=] {
    char byte = 0;
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    for (int i = 0; i < 2; ++i)
      if (write(from[1], &byte, 1) != 1 || read(to[0], &byte, 1) != 1) break;
    syscall(SYS_exit, 0);
  }).detach();
  alarm(20);
  char byte = 0;
  if (read(from[0], &byte, 1) != 1) return 2;  // it is in
  const int status = in_child([] {});
  const bool is_alive = write(to[1], &byte, 1) == 1 && read(from[0], &byte, 1) == 1;
  return is_alive ? status : 3;
}

// A worker puts all of its threads into a sandbox that ends it when it opens a file.
int fork_in_a_sandbox() {
  return undo_in([] {
    std::array<sock_filter, 4> filter = {
        sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
        sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const sock_fprog program = {filter.size(), filter.data()};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
      _exit(1);
    read_rows();
    std::this_thread::sleep_for(std::chrono::milliseconds(1600));
    if (in_child([] {}) != 0) _exit(2);
  });
}

bool is_all(const unsigned char* memory, std::size_t size, unsigned char value) {
  return std::count(memory, memory + size, value) == static_cast<std::ptrdiff_t>(size);
}

// Where a call fails half-way, or memory is not writable, a program finds the zeros that it would
// find without us.
int give_back() {
  constexpr int kInstallGuard = 102;  // MADV_GUARD_INSTALL, since Linux 6.13
  constexpr int kRemoveGuard = 103;
  unsigned char* const hole = full_memory();
  unsigned char* const locked = full_memory();
  unsigned char* const grown = full_memory();
  unsigned char* const guard = full_memory();
  unsigned char* const not_for_children = full_memory();
  if (in_child([] {}) != 0 || !is_settled(hole) || !is_settled(guard)) return 1;

  munmap(hole + kBytes / 2, kPage);
  const bool fails = madvise(hole, kBytes, MADV_DONTNEED) == -1 && errno == ENOMEM;
  if (!fails || !is_all(hole, kBytes / 2, 0) ||
      !is_all(hole + kBytes / 2 + kPage, kBytes / 2 - kPage, 0))
    return 2;

  if (mlock(locked + kBytes / 2, kPage) != 0 || madvise(locked, kBytes, MADV_DONTNEED) != -1 ||
      errno != EINVAL || !is_all(locked, kBytes / 2, 0) ||
      !is_all(locked + kBytes / 2, kBytes / 2, 7))
    return 3;

  if (mprotect(grown, kBytes / 2, PROT_READ) != 0 || munmap(grown + kBytes / 2, kBytes / 2) != 0)
    return 4;
  const auto* more = static_cast<unsigned char*>(mremap(grown, kBytes / 2, kBytes, MREMAP_MAYMOVE));
  if (!is_all(more, kBytes / 2, 7) || !is_all(more + kBytes / 2, kBytes / 2, 0)) return 5;

  if (madvise(guard, kPage, kInstallGuard) == 0 &&
      (madvise(guard, kPage, kRemoveGuard) != 0 || !is_all(guard, kPage, 0)))
    return 6;

  if (madvise(not_for_children, kBytes, MADV_DONTFORK) != 0 ||
      madvise(not_for_children, kBytes, MADV_DONTNEED) != 0 || !is_all(not_for_children, kBytes, 0))
    return 7;
  return in_child([=] {
    if (msync(not_for_children, kBytes, MS_ASYNC) == 0 || errno != ENOMEM) _exit(8);
  });
}

// Without a fork there is no thread, and nothing moves.
int never_fork() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (int threads = 0; word == "Threads:" && status >> threads)
      return threads == 1 && !is_settled(full_memory()) ? 0 : 1;
  return 1;
}

}  // namespace

int main(int, char** arguments) {
  const std::map<std::string, int (*)()> subjects = {
      {"undo", undo},
      {"undo_as_nobody", undo_as_nobody},
      {"undo_of_nobody", undo_of_nobody},
      {"fork_in_handlers", fork_in_handlers},
      {"fork_in_the_last_handler", fork_in_the_last_handler},
      {"fork_beside_a_sandbox", fork_beside_a_sandbox},
      {"fork_in_a_sandbox", fork_in_a_sandbox},
      {"give_back", give_back},
      {"end_threads", end_threads},
      {"crash", crash},
      {"never_fork", never_fork}};
  return subjects.at(arguments[1])();
}
