#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <sys/swap.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <utility>

#include <cowshed/tests/support/conditions.h>

namespace cowshed::test {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr const char* kHugePages = "/sys/kernel/mm/transparent_hugepage/enabled";
constexpr const char* kFolios = "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled";

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  if (!file) {
    throw std::runtime_error(path + ": does not take " + text);
  }
}

// The path of this process's cgroup in the hierarchy whose controllers contain `controller`.
std::string own_cgroup(const std::string& controller) {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if ("," + line.substr(first + 1, second - first - 1) + "," == "," + controller + ",") {
      return line.substr(second + 1);
    }
  }
  throw std::runtime_error("/proc/self/cgroup: no line for the memory controller");
}

}  // namespace

Conditions::Conditions(Needs needs, long n) {
  const auto units = static_cast<std::size_t>(n);
  switch (needs) {
    case Needs::nothing: break;
    case Needs::huge_pages:
      if (const std::string text = text_of(kHugePages);
          text.empty() || text.find("[never]") != std::string::npos) {
        missing_ = "transparent huge pages are off";
      }
      break;
    case Needs::folios:
      if (!fs::exists(kFolios)) {
        missing_ = "this kernel has no transparent huge pages of 64 KiB (Linux 6.8)";
      } else {
        set(kFolios, "madvise");
      }
      break;
    case Needs::reserved_pages:
      if (!fs::exists("/proc/sys/vm/nr_overcommit_hugepages")) {
        missing_ = "this kernel has no hugetlbfs";
      } else {
        set("/proc/sys/vm/nr_overcommit_hugepages", std::to_string(2 * units + 8));
      }
      break;
    case Needs::merging:
      if (!fs::exists("/sys/kernel/mm/ksm/run") || !fs::exists("/proc/self/ksm_merging_pages")) {
        missing_ = "this kernel has no KSM";
      } else {
        set("/sys/kernel/mm/ksm/pages_to_scan", "1000");
        set("/sys/kernel/mm/ksm/sleep_millisecs", "1");
        set("/sys/kernel/mm/ksm/run", "1");
      }
      break;
    case Needs::swap:
      if (std::getenv("COWSHED_MAY_SET_SYSCTLS") == nullptr) {
        missing_ = "COWSHED_MAY_SET_SYSCTLS is not set, so no swap is added";
      } else {
        add_swap();
      }
      break;
    case Needs::memory_limit: limit_memory(32 * kMiB + 8192 * units); break;
  }
}

Conditions::~Conditions() {
  if (!swap_file_.empty()) {
    swapoff(swap_file_.c_str());
    unlink(swap_file_.c_str());
  }
  if (!cgroup_.empty()) {
    std::ofstream(cgroup_before_ + "/cgroup.procs") << getpid();
    // A member that has ended a moment ago still counts.
    for (int attempt = 0; attempt < 1000 && rmdir(cgroup_.c_str()) != 0; ++attempt) {
      usleep(1000);
    }
  }
  while (!settings_.empty()) {
    settings_.pop_back();
  }
}

void Conditions::set(const std::string& path, const std::string& value) {
  settings_.push_back(std::make_unique<Setting>(path, value));
}

void Conditions::add_swap() {
  constexpr std::size_t kSize = 64 * kMiB;
  constexpr std::uint32_t kLastPage = kSize / 4096 - 1;
  std::string name = "/var/tmp/cowshed-swap-XXXXXX";
  const int fd = mkstemp(name.data());
  swap_file_ = name;
  // The header as mkswap writes it (include/linux/swap.h, union swap_header).
  std::vector<char> content(kSize);
  const std::array<std::uint32_t, 2> version_and_last_page = {1, kLastPage};
  std::memcpy(content.data() + 1024, version_and_last_page.data(), sizeof version_and_last_page);
  std::memcpy(content.data() + 4096 - 10, "SWAPSPACE2", 10);
  const bool written = fd >= 0 && write(fd, content.data(), kSize) == kSize && fsync(fd) == 0;
  close(fd);
  if (!written || swapon(name.c_str(), 0) != 0) {
    throw std::runtime_error(name + ": cannot swap there");
  }
}

void Conditions::limit_memory(std::size_t bytes) {
  const bool unified = fs::exists("/sys/fs/cgroup/cgroup.controllers");
  const std::string root = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
  if (!fs::exists(root + "/cgroup.procs")) {
    missing_ = "no memory controller in /sys/fs/cgroup";
    return;
  }
  cgroup_before_ = root + own_cgroup(unified ? "" : "memory");
  cgroup_ = root + "/cowshed-" + std::to_string(getpid());
  fs::create_directory(cgroup_);
  write_text(cgroup_ + (unified ? "/memory.max" : "/memory.limit_in_bytes"), std::to_string(bytes));
  events_ = cgroup_ + (unified ? "/memory.events" : "/memory.failcnt");
  write_text(cgroup_ + "/cgroup.procs", std::to_string(getpid()));
}

bool Conditions::limit_was_reached() const {
  const std::string text = text_of(events_);
  const std::size_t max = text.find("max ");
  return std::atol(text.c_str() + (max == std::string::npos ? 0 : max + 4)) > 0;
}

bool kernel_is_before(int major, int minor) {
  utsname name = {};
  uname(&name);
  int here_major = 0;
  int here_minor = 0;
  char dot = 0;
  std::istringstream(name.release) >> here_major >> dot >> here_minor;
  return std::pair(here_major, here_minor) < std::pair(major, minor);
}

}  // namespace cowshed::test
