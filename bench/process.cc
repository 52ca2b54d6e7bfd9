#include "process.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <fmt/format.h>
#include <fstream>
#include <sched.h>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

namespace cowshed::bench {
namespace {

const cpu_set_t& usable_cpus() {  // before the first thread is pinned
  static const cpu_set_t set = [] {
    cpu_set_t all;
    CPU_ZERO(&all);
    sched_getaffinity(0, sizeof all, &all);
    return all;
  }();
  return set;
}

}  // namespace

void expect_pages(const std::string& field, std::size_t bytes) {
  const std::size_t found = proc_bytes("/proc/self/smaps_rollup", field);
  const std::size_t large_enough = std::size_t{64} << 20U;  // less may lie between 2 MiB limits
  if (bytes == 0 ? found != 0 : bytes >= large_enough && found < bytes / 10 * 9)
    throw std::runtime_error(
        fmt::format("{} are {} MiB, not {}", field, found >> 20U, bytes >> 20U));
}

void use_small_pages() {
  if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0)
    throw std::system_error(errno, std::system_category(), "PR_SET_THP_DISABLE");
}

std::size_t cpu_count() { return static_cast<std::size_t>(CPU_COUNT(&usable_cpus())); }

void pin_to_cpu(std::size_t index) {
  const cpu_set_t& usable = usable_cpus();
  std::vector<int> cpus;
  for (int cpu = CPU_SETSIZE - 1; cpu >= 0; --cpu)
    if (CPU_ISSET(cpu, &usable)) cpus.push_back(cpu);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpus.at(index % cpus.size()), &one);
  sched_setaffinity(0, sizeof one, &one);
}

void unpin() { sched_setaffinity(0, sizeof(cpu_set_t), &usable_cpus()); }

std::size_t proc_bytes(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(name + ":")) return std::stoull(line.substr(name.size() + 1)) * 1024;
  throw std::runtime_error(path + " has no " + name);
}

Child::Child(std::size_t cpu, const std::function<void()>& work) : pid_(fork()) {
  if (pid_ < 0) throw std::runtime_error("no process can be forked");
  if (pid_ > 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pin_to_cpu(cpu);
  try {
    work();
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "a child: %s\n", failure.what());
    _exit(1);
  }
  _exit(0);
}

Child::~Child() {
  if (pid_ == 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Child::join() {
  int status = -1;
  waitpid(std::exchange(pid_, 0), &status, 0);
  if (status != 0) throw std::runtime_error("a child has failed");
}

void* shared_memory(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("mmap");
  return memory;
}

pthread_barrier_t* shared_barrier(unsigned processes) {
  auto* barrier = static_cast<pthread_barrier_t*>(shared_memory(sizeof(pthread_barrier_t)));
  pthread_barrierattr_t shared;
  pthread_barrierattr_init(&shared);
  pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(barrier, &shared, processes);
  return barrier;
}

}  // namespace cowshed::bench
