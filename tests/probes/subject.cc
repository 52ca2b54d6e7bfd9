#include "subject.h"

#include <poll.h>
#include <sys/personality.h>
#include <sys/socket.h>

namespace cowshed::test {
namespace {

// Its standard input and output are the socket, by which it is told to begin.
[[noreturn]] void become_subject(const char* kind, const char* n, int socket) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  char byte = 0;
  if (read(socket, &byte, 1) != 1) _exit(72);
  dup2(socket, 0);
  dup2(socket, 1);
  personality(ADDR_NO_RANDOMIZE);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  sched_setaffinity(0, sizeof one, &one);
  // A fixed environment, hence the same stack in every run.  Registered restartable sequences have
  // the kernel write to the thread's own page whenever it was preempted, so not always.
  std::array<char, 40> no_rseq = {"GLIBC_TUNABLES=glibc.pthread.rseq=0"};
  char* const environment[] = {no_rseq.data(), nullptr};
  char* const arguments[] = {const_cast<char*>(GROUND_TRUTH_SUBJECT), const_cast<char*>(kind),
                             const_cast<char*>(n), nullptr};
  execve(GROUND_TRUTH_SUBJECT, arguments, environment);
  _exit(73);
}

// Waits for "done"; the PID that the subject printed before.
pid_t await_done(int out, const std::function<void()>& meanwhile) {
  std::string text;
  std::array<char, 256> chunk;
  while (text.find("done") == std::string::npos) {
    pollfd readable = {.fd = out, .events = POLLIN, .revents = 0};
    if (meanwhile && poll(&readable, 1, 0) == 0) {
      meanwhile();
      continue;
    }
    const ssize_t got = read(out, chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw std::runtime_error("the subject ended early, having said: " + text);
    text.append(chunk.data(), static_cast<std::size_t>(got));
  }
  return std::stoi(text.substr(text.find(' ')));
}

}  // namespace

std::string cannot_probe() {
  const auto supported = probe_support();
  return supported ? std::string() : supported.error().message;
}

SubjectRun run_subject(Probe& probe, const std::string& kind, long n,
                       const std::function<void(const Snapshot&)>& observe) {
  // Of equal length, so that the stack is the same for every N.
  std::string digits = std::to_string(n);
  digits.insert(0, 23 - digits.size(), '0');
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw std::runtime_error("socketpair");
  const pid_t child = fork();
  if (child == 0) become_subject(kind.c_str(), digits.c_str(), ends[1]);
  close(ends[1]);
  const std::shared_ptr<const int> socket(ends, [](const int* end) { close(*end); });
  if (const auto tracked = probe.track_command(child); !tracked)
    throw std::runtime_error(tracked.error().message);
  if (write(*socket, "g", 1) != 1) throw std::runtime_error("write");

  std::map<std::uint64_t, ProcessCounts> processes;  // the newest, by id
  const auto merge = [&](const Snapshot& snapshot) {
    for (const ProcessCounts& process : snapshot.processes) processes[process.id] = process;
  };
  std::function<void()> meanwhile;
  if (observe) {
    meanwhile = [&] {
      const Snapshot snapshot = probe.snapshot().value();
      merge(snapshot);
      observe(snapshot);
    };
  }
  SubjectRun run;
  const pid_t measured = await_done(*socket, meanwhile);
  run.wpcopy = wpcopy_count(measured);
  const Snapshot alive = probe.snapshot().value();
  merge(alive);
  if (observe) observe(alive);  // it may have been too quick to be seen before
  for (const ProcessCounts& process : alive.processes)
    if (process.pid == measured && process.alive) run.while_alive = process;
  shutdown(*socket, SHUT_WR);
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0)
    throw std::runtime_error("the subject ended with status " + std::to_string(status));
  const Snapshot last = probe.snapshot().value();
  merge(last);
  run.losses = last.losses;
  run.overhead = last.overhead;
  run.measured = processes[run.while_alive.id];
  for (auto& [id, process] : processes) run.processes.push_back(std::move(process));
  return run;
}

}  // namespace cowshed::test
