#include "process.h"

#include <cerrno>
#include <csignal>
#include <exception>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cowshed::test {

Process::Process(const std::function<int()>& body) : pid_(fork()) {
  if (pid_ != 0) {
    return;
  }
  int code = 98;
  try {
    code = body();
  } catch (const std::exception&) {
  }
  _exit(code);
}

Process::~Process() {
  if (!reaped_) {
    signal(SIGKILL);
    wait();
  }
}

void Process::signal(int number) const { kill(pid_, number); }

int Process::wait() {
  int status = 0;
  while (!reaped_ && waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  if (!reaped_) {
    reaped_ = true;
    result_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  return result_;
}

bool Process::running() {
  siginfo_t info{};
  return !reaped_ &&
         waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == 0;
}

void Process::stop() const {
  signal(SIGSTOP);
  int status = 0;
  waitpid(pid_, &status, WUNTRACED);
}

void* shared_memory(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw std::runtime_error("no shared memory");
  }
  return memory;
}

}  // namespace cowshed::test
