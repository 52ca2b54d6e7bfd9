#include "machine.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <fmt/format.h>
#include <fstream>
#include <sched.h>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <system_error>
#include <vector>

namespace cowshed::bench {
namespace {

constexpr std::size_t kLeaveAlone = std::size_t{1} << 30U;  // of the available memory

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

void expect_pages(bool huge, std::size_t bytes) {
  const std::size_t found = proc_bytes("/proc/self/smaps_rollup", "AnonHugePages");
  const std::size_t large_enough = std::size_t{64} << 20U;  // less may lie between 2 MiB limits
  if (huge ? bytes >= large_enough && found < bytes / 10 * 9 : found != 0)
    throw std::runtime_error(
        fmt::format("of {} MiB {} are in 2 MiB pages", bytes >> 20U, found >> 20U));
}

void use_small_pages() {
  if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0)
    throw std::system_error(errno, std::system_category(), "PR_SET_THP_DISABLE");
}

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

void touch_memory(std::size_t bytes) {
  const std::size_t available = proc_bytes("/proc/meminfo", "MemAvailable");
  bytes = std::min(bytes, available > kLeaveAlone ? available - kLeaveAlone : 0);
  if (bytes == 0) return;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return;
  madvise(memory, bytes, MADV_HUGEPAGE);  // the quick way to touch much
  auto* at = static_cast<volatile std::uint8_t*>(memory);
  for (std::size_t offset = 0; offset < bytes; offset += 4096) at[offset] = 1;
  munmap(memory, bytes);
}

std::size_t proc_bytes(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(name + ":")) return std::stoull(line.substr(name.size() + 1)) * 1024;
  throw std::runtime_error(path + " has no " + name);
}

}  // namespace cowshed::bench
