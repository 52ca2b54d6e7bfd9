// Programs whose children's copies are known, and whose waits, signals and job control have to be
// as they are untraced: each exits with 0 when all was, else with the line of what was not.
//
//   exit_subject MODE [PAGES]

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <map>
#include <pthread.h>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr std::size_t kPageSize = 4096;

volatile char* memory;
std::size_t pages = 100;

void require(bool holds, int line) {
  if (holds) return;
  std::fprintf(stderr, "exit_subject.cc:%d\n", line);
  ::_exit(line % 200 + 1);
}
#define REQUIRE(condition) require(condition, __LINE__)

pid_t start(const std::function<void()>& work) {
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    work();
    ::_exit(0);
  }
  return pid;
}

int wait_for(pid_t pid, int options = 0) {
  int status = 0;
  REQUIRE(::waitpid(pid, &status, options) == pid);
  return status;
}

// One byte of each of so many pages.
void change(std::size_t count) {
  for (std::size_t page = 0; page < count; ++page) memory[page * kPageSize + 16] = 2;
}

// The number in a line of /proc/self/status.
long number_in_status(const std::string& name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name)) return std::stol(line.substr(name.size()));
  }
  REQUIRE(false);
  return 0;
}

struct Pipe {
  Pipe() { REQUIRE(::pipe(ends.data()) == 0); }
  void give() const { REQUIRE(::write(ends[1], "", 1) == 1); }
  void take() const {
    char byte = 0;
    REQUIRE(::read(ends[0], &byte, 1) == 1);
  }
  std::array<int, 2> ends{};
};

void changes() {
  REQUIRE(wait_for(start([] { change(pages); })) == 0);
}

void up_and_down() {
  REQUIRE(wait_for(start([] {
            for (const int step : {1, -1}) {
              for (std::size_t page = 0; page < pages; ++page) {
                volatile char& count = memory[page * kPageSize];
                count = static_cast<char>(count + step);
              }
            }
          })) == 0);
}

// A sibling that still shares all writes after the first child has exited.
void in_turn() {
  const Pipe go;
  const pid_t second = start([&] {
    go.take();
    change(pages);
  });
  changes();
  go.give();
  REQUIRE(wait_for(second) == 0);
}

// The parent writes first; two children have the originals, one after the other ends.
void parent_first() {
  const Pipe go;
  const pid_t first = start([&] { go.take(); });
  const pid_t second = start([&] { go.take(); });
  change(pages);
  go.give();
  go.give();
  REQUIRE(wait_for(first) == 0);
  REQUIRE(wait_for(second) == 0);
}

void parent_exits_first() {
  const Pipe go;
  const Pipe started;
  const pid_t middle = start([&] {
    start([&] {
      started.give();
      go.take();
      change(10);
    });
    started.take();
    change(pages);
  });
  REQUIRE(wait_for(middle) == 0);
  go.give();
  ::usleep(100'000);
}

void* change_later(void*) {
  ::usleep(50'000);
  change(pages);
  return nullptr;
}

void leader_exits_first() {
  REQUIRE(wait_for(start([] {
            pthread_t thread{};
            REQUIRE(::pthread_create(&thread, nullptr, change_later, nullptr) == 0);
            ::syscall(SYS_exit, 3);  // this thread alone
          })) == 0);
}

// Nobody has looked at the first thread's exit when another ends all: who traces us stops
// meanwhile.
void leader_exits_unseen() {
  const auto tracer = static_cast<pid_t>(number_in_status("TracerPid:"));
  const Pipe runs;
  const pid_t helper = start([=] {
    runs.give();
    ::usleep(400'000);
    if (tracer != 0) ::kill(tracer, SIGCONT);
  });
  runs.take();  // a tracer that is stopped could not let it begin
  const int status = wait_for(start([=] {
    pthread_t thread{};
    const auto end_all = [](void* nothing) -> void* {
      change_later(nothing);
      ::_exit(3);
    };
    REQUIRE(::pthread_create(&thread, nullptr, end_all, nullptr) == 0);
    if (tracer != 0) ::kill(tracer, SIGSTOP);
    ::syscall(SYS_exit, 0);  // this thread alone
  }));
  REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 3);
  REQUIRE(wait_for(helper) == 0);
}

void* exit_all(void*) {
  change(pages);
  ::_exit(7);
}

void group_exit() {
  const int status = wait_for(start([] {
    std::array<pthread_t, 8> threads{};
    for (std::size_t i = 0; i < threads.size(); ++i) {
      REQUIRE(::pthread_create(
                  &threads.at(i), nullptr,
                  [](void*) -> void* {
                    for (;;) ::pause();
                  },
                  nullptr) == 0);
    }
    pthread_t last{};
    REQUIRE(::pthread_create(&last, nullptr, exit_all, nullptr) == 0);
    for (;;) ::pause();
  }));
  REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

// One PID for 20 children, one after the other, of which each writes to one page more.
void reused_pid() {
  pid_t pid = 0;
  for (std::size_t child = 1; child <= 20; ++child) {
    clone_args arguments{};
    arguments.exit_signal = SIGCHLD;
    if (pid != 0) {
      arguments.set_tid = reinterpret_cast<std::uintptr_t>(&pid);
      arguments.set_tid_size = 1;
    }
    const long cloned = ::syscall(SYS_clone3, &arguments, sizeof arguments);
    REQUIRE(cloned >= 0);
    if (cloned == 0) {
      change(child);
      ::_exit(0);
    }
    pid = static_cast<pid_t>(cloned);
    wait_for(pid);
  }
}

void killed() {
  const Pipe done;
  const pid_t pid = start([&] {
    change(pages);
    done.give();
    for (;;) ::pause();
  });
  done.take();
  REQUIRE(::kill(pid, SIGKILL) == 0);
  const int status = wait_for(pid);
  REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

void crashed() {
  const int status = wait_for(start([] {
    change(pages);
    *static_cast<volatile int*>(nullptr) = 1;  // NOLINT: it is to crash
  }));
  REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

// 200 at most 20 at a time, each with its own status.
void many() {
  constexpr int kChildren = 200;
  constexpr std::size_t kAtOnce = 20;
  std::map<pid_t, int> running;
  const auto take_one = [&] {
    int status = 0;
    const pid_t pid = ::wait(&status);
    REQUIRE(running.contains(pid));
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == running[pid]);
    running.erase(pid);
  };
  for (int i = 0; i < kChildren; ++i) {
    if (running.size() == kAtOnce) take_one();
    running[start([&] {
      change(pages);
      ::_exit(i % 100);
    })] = i % 100;
  }
  while (!running.empty()) take_one();
  REQUIRE(::wait(nullptr) == -1 && errno == ECHILD);
}

volatile sig_atomic_t children_reported;
volatile sig_atomic_t signals_seen;

void job_control() {
  struct sigaction action{};
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    if (info->si_code == CLD_STOPPED || info->si_code == CLD_CONTINUED ||
        info->si_code == CLD_EXITED) {
      children_reported = children_reported + 1;
    }
  };
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  REQUIRE(::sigaction(SIGCHLD, &action, nullptr) == 0);
  const Pipe go;
  const Pipe seen;
  const pid_t pid = start([&] {
    // Of a group whose parents are all in it, or in no session of ours, SIGTSTP stops none.
    REQUIRE(::setpgid(0, 0) == 0);
    struct sigaction count{};
    count.sa_handler = [](int) { signals_seen = signals_seen + 1; };
    count.sa_flags = SA_RESTART;
    ::sigaction(SIGUSR1, &count, nullptr);
    go.give();
    while (signals_seen < 2) ::usleep(1000);
    seen.take();  // a stop takes back that it went on
    ::raise(SIGSTOP);
    change(pages);
    ::_exit(9);
  });
  go.take();
  for (const int signal : {SIGSTOP, SIGTSTP}) {
    REQUIRE(::kill(pid, signal) == 0);
    int status = wait_for(pid, WUNTRACED);
    REQUIRE(WIFSTOPPED(status) && WSTOPSIG(status) == signal);
    REQUIRE(::kill(pid, SIGUSR1) == 0);  // not delivered before it goes on
    ::usleep(20'000);
    REQUIRE(::waitpid(pid, &status, WNOHANG | WUNTRACED | WCONTINUED) == 0);
    REQUIRE(::kill(pid, SIGCONT) == 0);
    status = wait_for(pid, WCONTINUED);
    REQUIRE(WIFCONTINUED(status));
    ::usleep(20'000);
  }
  seen.give();
  int status = wait_for(pid, WUNTRACED);  // its own raise
  REQUIRE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
  REQUIRE(::kill(pid, SIGCONT) == 0);
  status = wait_for(pid);
  REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 9);
  REQUIRE(children_reported >= 4);  // seven, but those that come at once are one
}

void vfork_and_exec() {
  for (int i = 0; i < 3; ++i) {
    const pid_t pid = ::vfork();
    if (pid == 0) {
      ::execl("/bin/true", "true", nullptr);
      ::_exit(1);
    }
    REQUIRE(wait_for(pid) == 0);
  }
  change(pages);
}

// exec by a thread that is not the first.
void exec_in_thread() {
  const int status = wait_for(start([] {
    change(pages);
    pthread_t thread{};
    ::pthread_create(
        &thread, nullptr,
        [](void*) -> void* {
          ::execl("/bin/sh", "sh", "-c", "exit 4", nullptr);
          ::_exit(1);
        },
        nullptr);
    for (;;) ::pause();
  }));
  REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 4);
}

void seccomp() {
  const int status = wait_for(start([] {
    change(pages);
    REQUIRE(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
    ::syscall(SYS_exit, 5);
  }));
  REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 5);
}

// What a debugger does is refused to a process that is traced already.
void traceme() {
  const int status = wait_for(start([] {
    change(pages);
    const long result = ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ::_exit(result == -1 && errno == EPERM ? 1 : 0);
  }));
  REQUIRE(WIFEXITED(status));
  std::printf("%s\n", WEXITSTATUS(status) == 1 ? "refused" : "allowed");
}

// Prints its child's PID; both write and exit when a byte comes.
void waits() {
  const Pipe started;
  const pid_t pid = start([&] {
    started.give();
    char byte = 0;
    REQUIRE(::read(STDIN_FILENO, &byte, 1) >= 0);
    change(pages);
  });
  started.take();
  std::printf("%d\n", pid);
  std::fflush(stdout);
  REQUIRE(wait_for(pid) == 0);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (argc > 2) pages = std::strtoul(argv[2], nullptr, 10);
  ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  memory =
      static_cast<volatile char*>(::mmap(nullptr, (pages + 1) * kPageSize, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  for (std::size_t page = 0; page < pages; ++page) memory[page * kPageSize] = 1;
  const std::map<std::string, void (*)()> modes = {{"changes", changes},
                                                   {"up_and_down", up_and_down},
                                                   {"in_turn", in_turn},
                                                   {"parent_first", parent_first},
                                                   {"parent_exits_first", parent_exits_first},
                                                   {"leader_exits_first", leader_exits_first},
                                                   {"leader_exits_unseen", leader_exits_unseen},
                                                   {"group_exit", group_exit},
                                                   {"killed", killed},
                                                   {"reused_pid", reused_pid},
                                                   {"crashed", crashed},
                                                   {"many", many},
                                                   {"job_control", job_control},
                                                   {"vfork_and_exec", vfork_and_exec},
                                                   {"exec_in_thread", exec_in_thread},
                                                   {"seccomp", seccomp},
                                                   {"traceme", traceme},
                                                   {"waits", waits}};
  const auto chosen = modes.find(mode);
  if (chosen == modes.end()) return EXIT_FAILURE;
  chosen->second();
  return EXIT_SUCCESS;
}
