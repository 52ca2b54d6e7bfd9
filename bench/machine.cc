#include "machine.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <gnu/libc-version.h>
#include <sched.h>
#include <stdexcept>
#include <string_view>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <vector>

namespace cowshed::bench {
namespace {

constexpr std::size_t kLeastForHugePages = std::size_t{64} << 20U;
constexpr std::size_t kLeaveAlone = std::size_t{1} << 30U;  // of the available memory
constexpr const char* kHugePages = "/sys/kernel/mm/transparent_hugepage/enabled";

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

}  // namespace

nlohmann::json describe_machine() {
  utsname names{};
  uname(&names);
  return {{"processor", processor()},
          {"cores", usable_cpus().size()},
          {"memory_bytes", proc_bytes("/proc/meminfo", "MemTotal")},
          {"kernel", std::string(names.release)},
          {"thp", first_line(kHugePages)},
          {"shmem_thp", first_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled")},
          {"glibc", gnu_get_libc_version()}};
}

bool has_huge_pages() {
  const std::string setting = first_line(kHugePages);  // empty: a kernel without them
  return !setting.empty() && setting.find("[never]") == std::string::npos;
}

void expect_huge_pages(std::size_t bytes) {
  struct Setting {
    const char* variable;
    const char* text;
  };
  constexpr std::array<Setting, 2> kSettings = {
      {{"GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"}, {"MALLOC_CONF", "thp:always"}}};
  if (bytes < kLeastForHugePages || !has_huge_pages()) return;
  for (const auto& [variable, text] : kSettings) {
    const char* value = std::getenv(variable);
    if (value == nullptr || std::string_view(value).find(text) == std::string_view::npos) continue;
    const std::size_t huge = proc_bytes("/proc/self/smaps_rollup", "AnonHugePages");
    if (huge >= bytes / 2) continue;
    throw std::runtime_error(std::string("with ") + variable + "=" + text + " of " +
                             std::to_string(bytes >> 20U) + " MiB only " +
                             std::to_string(huge >> 20U) + " are in 2 MiB pages");
  }
}

void pin_to_cpu(std::size_t index) {
  static const std::vector<int> cpus = usable_cpus();  // before the first thread is pinned
  if (cpus.empty()) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpus[cpus.size() - 1 - index % cpus.size()], &one);
  sched_setaffinity(0, sizeof one, &one);
}

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
