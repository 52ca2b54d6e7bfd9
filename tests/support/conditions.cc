#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/swap.h>
#include <sys/utsname.h>

#include <cowshed/tests/support/conditions.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr const char* kHugePages = "/sys/kernel/mm/transparent_hugepage/enabled";
// khugepaged would make huge pages where the subject expects small ones.
constexpr const char* kCollapserPause =
    "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs";
constexpr const char* kReserved = "/proc/sys/vm/nr_overcommit_hugepages";
constexpr const char* kFolios = "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled";

void write_text(const std::string& path, const std::string& text) {
  if (!write_file(path, text)) throw std::runtime_error(path + ": does not take " + text);
}

// The path of this process's cgroup in the hierarchy whose controllers contain `controller`.
std::string own_cgroup(const std::string& controller) {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if ("," + line.substr(first + 1, second - first - 1) + "," == "," + controller + ",")
      return line.substr(second + 1);
  }
  throw std::runtime_error("/proc/self/cgroup: no line for the memory controller");
}

}  // namespace

Conditions::Conditions(Needs needs, long n) {
  const auto units = static_cast<std::size_t>(n);
  const std::string merging = "/sys/kernel/mm/ksm/";
  const auto has = [&](const std::string& file, const char* what) {
    if (!fs::exists(file)) missing_ = std::string("this kernel has no ") + what;
    return missing_.empty();
  };
  switch (needs) {
    case Needs::nothing: break;
    case Needs::zero_page:
      if (!kernel_maps_zero_page()) missing_ = "this kernel maps no page of zeros";
      break;
    case Needs::huge_zero_page:
      if (!kernel_maps_zero_page()) missing_ = "this kernel maps no page of zeros";
      [[fallthrough]];
    case Needs::huge_pages:
      if (const std::string text = contents_of(kHugePages);
          text.empty() || text.find("[never]") != std::string::npos) {
        missing_ = "transparent huge pages are off";
      } else {
        set(kCollapserPause, "4294967295");
      }
      break;
    case Needs::folios:
      if (has(kFolios, "transparent huge pages of 64 KiB (Linux 6.8)")) set(kFolios, "madvise");
      break;
    case Needs::reserved_pages:
      if (has(kReserved, "hugetlbfs")) set(kReserved, std::to_string(2 * units + 8));
      break;
    case Needs::merging:
      if (has(merging + "run", "KSM") && has("/proc/self/ksm_merging_pages", "KSM")) {
        set(merging + "pages_to_scan", "1000");
        set(merging + "sleep_millisecs", "1");
        set(merging + "run", "1");
      }
      break;
    case Needs::swap:
      if (may_swap()) add_swap();
      break;
    case Needs::compressed_swap:
      if (may_swap()) add_compressed_swap();
      break;
    case Needs::memory_limit: limit_memory(32 * kMiB + 8192 * units); break;
    case Needs::memory_limit_and_compressed_swap:
      if (may_swap()) add_compressed_swap();
      if (missing_.empty()) limit_memory(4 * kMiB + 1024 * units);
      break;
    case Needs::guard_pages:
      if (kernel_is_before(6, 13)) missing_ = "this kernel has no guard pages (Linux 6.13)";
      break;
    case Needs::time_namespace: (void)has("/proc/self/ns/time", "time namespaces"); break;
    case Needs::io_uring:
      if (syscall(SYS_io_uring_setup, 0, nullptr) < 0 && (errno == ENOSYS || errno == EPERM))
        missing_ = std::string("io_uring_setup: ") + std::strerror(errno);
      break;
  }
}

Conditions::~Conditions() {
  if (!swap_file_.empty()) {
    swapoff(swap_file_.c_str());
    if (zram_.empty()) unlink(swap_file_.c_str());
  }
  if (!zram_.empty()) {
    std::ofstream("/sys/block/zram" + zram_ + "/reset") << 1;
    std::ofstream("/sys/class/zram-control/hot_remove") << zram_;
  }
  if (!cgroup_.empty()) {
    std::ofstream(cgroup_before_ + "/cgroup.procs") << getpid();
    // A member that has ended a moment ago still counts.
    for (int attempt = 0; attempt < 1000 && rmdir(cgroup_.c_str()) != 0; ++attempt) usleep(1000);
  }
  while (!settings_.empty()) settings_.pop_back();
}

bool Conditions::may_swap() {
  if (std::getenv("COWSHED_MAY_SET_SYSCTLS") != nullptr) return true;
  missing_ = "COWSHED_MAY_SET_SYSCTLS is not set, so no swap is added";
  return false;
}

void Conditions::set(const std::string& path, const std::string& value) {
  settings_.push_back(std::make_unique<Setting>(path, value));
}

void Conditions::add_swap() {
  swap_file_ = "/var/tmp/cowshed-swap-XXXXXX";
  swap_to(mkstemp(swap_file_.data()), 64 * kMiB);
}

void Conditions::add_compressed_swap() {
  constexpr const char* kControl = "/sys/class/zram-control";
  if (!fs::exists(kControl)) {
    missing_ = "this kernel has no zram (or its module is not loaded)";
    return;
  }
  std::ifstream(std::string(kControl) + "/hot_add") >> zram_;  // reading makes it
  constexpr std::size_t kSize = 256 * kMiB;
  write_text("/sys/block/zram" + zram_ + "/disksize", std::to_string(kSize));
  swap_file_ = "/dev/zram" + zram_;
  swap_to(open(swap_file_.c_str(), O_RDWR | O_CLOEXEC), kSize);
}

void Conditions::swap_to(int fd, std::size_t size) {
  // The header as mkswap writes it (include/linux/swap.h, union swap_header).
  std::vector<char> content(zram_.empty() ? size : 4096);
  const std::array<std::uint32_t, 2> version_and_last_page = {
      1, static_cast<std::uint32_t>(size / 4096 - 1)};
  std::memcpy(content.data() + 1024, version_and_last_page.data(), sizeof version_and_last_page);
  std::memcpy(content.data() + 4096 - 10, "SWAPSPACE2", 10);
  const bool written =
      fd >= 0 &&
      write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()) &&
      fsync(fd) == 0;
  close(fd);
  constexpr int kFirst = SWAP_FLAG_PREFER | 32767;
  if (!written || swapon(swap_file_.c_str(), kFirst) != 0)
    throw std::runtime_error(swap_file_ + ": cannot swap there");
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
  const std::string text = contents_of(events_);
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

bool kernel_maps_zero_page() {
  static const bool maps_it = [] {
    const auto size = static_cast<std::size_t>(::getpagesize());
    void* page = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) throw std::runtime_error("mmap: no page to read");
    (void)*static_cast<const volatile char*>(page);
    constexpr std::uint64_t kExclusivelyMapped = std::uint64_t{1} << 56;
    std::uint64_t entry = 0;
    const int pagemap = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    const auto at =
        static_cast<off_t>(reinterpret_cast<std::uintptr_t>(page) / size * sizeof entry);
    const bool is_read = ::pread(pagemap, &entry, sizeof entry, at) == sizeof entry;
    ::close(pagemap);
    ::munmap(page, size);
    if (!is_read) throw std::runtime_error("/proc/self/pagemap: cannot be read");
    return (entry & kExclusivelyMapped) == 0;
  }();
  return maps_it;
}

bool has_capability(unsigned number) {
  std::ifstream status("/proc/self/status");
  std::uint64_t effective = 0;
  for (std::string word; status >> word;)
    if (word == "CapEff:") status >> std::hex >> effective;
  return (effective >> number & 1) != 0;
}

bool has_sys_admin() { return has_capability(CAP_SYS_ADMIN); }

bool can_have_private_mounts() {
  const pid_t child = ::fork();
  if (child == 0) {
    const bool can = ::unshare(CLONE_NEWNS) == 0 &&
                     ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    ::_exit(can ? 0 : 1);
  }
  int status = 1;
  return child > 0 && ::waitpid(child, &status, 0) == child && status == 0;
}

}  // namespace cowshed::test
