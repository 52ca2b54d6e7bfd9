#include "fork_subject.h"

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <memory_resource>
#include <optional>
#include <random>
#include <sched.h>
#include <spawn.h>
#include <stdexcept>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/share/arena.h>

namespace cowshed::bench {
namespace {

const char* name_of(Holds holds) {
  switch (holds) {
    case Holds::arena: return "arena";
    case Holds::nothing: return "nothing";
    case Holds::heap: return "heap";
  }
  return "";
}

// Linked nodes of 48 to 256 bytes; one in a thousand has 4 to 64 KiB.
void fill(std::pmr::memory_resource& memory, std::size_t bytes) {
  std::mt19937 random(1);
  void* last = nullptr;
  for (std::size_t done = 0; done < bytes;) {
    const std::size_t size = random() % 1000 == 0 ? 4_KiB + random() % 60_KiB : 48 + random() % 209;
    void* node = memory.allocate(size, alignof(void*));
    std::memset(node, 1, size);
    std::memcpy(node, &last, sizeof last);
    last = node;
    done += size;
  }
}

double timed_fork() {
  using Clock = std::chrono::steady_clock;
  const auto before = Clock::now();
  const pid_t pid = fork();
  if (pid == 0) {
    _exit(0);
  }
  const auto after = Clock::now();
  if (pid < 0 || waitpid(pid, nullptr, 0) != pid) {
    return -1;
  }
  return std::chrono::duration<double, std::nano>(after - before).count();
}

void pin_to_last_cpu() {
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) {
    return;
  }
  int last = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &cpus)) {
      last = cpu;
    }
  }
  CPU_ZERO(&cpus);
  CPU_SET(last, &cpus);
  sched_setaffinity(0, sizeof cpus, &cpus);
}

bool put(double value) { return write(STDOUT_FILENO, &value, sizeof value) == sizeof value; }

}  // namespace

int run_subject(const std::string& holds, std::size_t bytes) {
  auto arena = Arena::create({.name = "subject", .capacity = bytes * 2 + 64_MiB});
  if (!arena) {
    return 1;
  }
  if (holds == name_of(Holds::arena)) {
    fill(*arena->resource(), bytes);
  }
  if (holds == name_of(Holds::heap)) {
    fill(*std::pmr::new_delete_resource(), bytes);
  }
  if (!arena->freeze()) {
    return 1;
  }
  const ArenaStats stats = arena->stats();
  const auto used = static_cast<double>(stats.used);
  pin_to_last_cpu();
  for (int i = 0; i < 5; ++i) {
    timed_fork();
  }  // warm
  if (!put(used > 0 ? static_cast<double>(stats.huge_page_bytes) / used : 0)) {
    return 1;
  }
  for (char byte = 0; read(STDIN_FILENO, &byte, 1) == 1;) {
    if (!put(timed_fork())) {
      return 1;
    }
  }
  return 0;
}

Subject::Subject(Holds holds, std::size_t bytes) {
  std::array<int, 2> to{};
  std::array<int, 2> from{};
  if (pipe2(to.data(), O_CLOEXEC) != 0 || pipe2(from.data(), O_CLOEXEC) != 0) {
    throw std::runtime_error("pipe");
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
  std::string self = "/proc/self/exe";
  std::string option = "--subject";
  std::string what = name_of(holds);
  std::string size_option = "--bytes";
  std::string size = std::to_string(bytes);
  std::array<char*, 6> arguments = {self.data(),        option.data(), what.data(),
                                    size_option.data(), size.data(),   nullptr};
  const int error = posix_spawn(&pid_, self.c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(to[0]);
  close(from[1]);
  to_ = to[1];
  from_ = from[0];
  if (error != 0) {
    throw std::runtime_error("posix_spawn of a subject");
  }
  huge_share_ = read_number();
}

Subject::~Subject() {
  close(to_);
  close(from_);
  waitpid(pid_, nullptr, 0);
}

double Subject::read_number() {
  double value = 0;
  if (read(from_, &value, sizeof value) != sizeof value) {
    throw std::runtime_error("a subject ended early: is there memory enough?");
  }
  return value;
}

double Subject::fork_ns() {
  const char byte = 'f';
  if (write(to_, &byte, 1) != 1) {
    throw std::runtime_error("a subject is gone");
  }
  return read_number();
}

}  // namespace cowshed::bench
