#include <array>
#include <cerrno>
#include <filesystem>
#include <sched.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include <cowshed/base/arch/arch.h>
#include <cowshed/share/process/other_threads.h>
#include <cowshed/share/settle/mappings.h>
#include <cowshed/share/settle/refusals.h>

extern "C" {
[[gnu::weak]] void __asan_init();    // NOLINT(bugprone-reserved-identifier)
[[gnu::weak]] void __hwasan_init();  // NOLINT(bugprone-reserved-identifier)
[[gnu::weak]] void __lsan_init();    // NOLINT(bugprone-reserved-identifier)
[[gnu::weak]] void __msan_init();    // NOLINT(bugprone-reserved-identifier)
[[gnu::weak]] void __tsan_init();    // NOLINT(bugprone-reserved-identifier)
}

namespace cowshed::settling {
namespace {

const char* sanitizer() {
  if (__asan_init != nullptr || __hwasan_init != nullptr) return "AddressSanitizer";
  if (__lsan_init != nullptr) return "LeakSanitizer";
  if (__msan_init != nullptr) return "MemorySanitizer";
  return __tsan_init != nullptr ? "ThreadSanitizer" : nullptr;
}

constexpr const char* kIoRing = "this process has an io_uring";

bool has_io_ring() {
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    const auto target = std::filesystem::read_symlink(file.path(), error);
    if (target == "anon_inode:[io_uring]") return true;
  }
  return false;
}

// Whether this process's only thread has its memory in common with another process.  unshare(2) of
// memory does nothing, and fails for such a process, and for one with other threads.
bool shares_memory() {
  struct stat tasks{};
  constexpr std::size_t kLinksOfOneThread = 3;  // with "." and ".."
  if (stat("/proc/self/task", &tasks) != 0 || tasks.st_nlink != kLinksOfOneThread) return false;
  constexpr int kTries = 5;  // a thread that was joined is there for a moment, and not counted
  for (int i = 0; i < kTries; ++i) {
    if (unshare(CLONE_VM) == 0 || errno != EINVAL) return false;
    usleep(200);
  }
  return true;
}

}  // namespace

void AsynchronousIo::note(const MapsLine& line) {
  if (line.name == "anon_inode:[io_uring]") found_ = kIoRing;
  if (line.name.starts_with("/[aio]")) found_ = "this process has a context of io_setup(2)";
}

const char* AsynchronousIo::found() const {
  if (found_ != nullptr || status_bytes("VmPin") == 0) return found_;
  return "memory of this process is pinned for I/O";
}

tl::unexpected<Error> refuse_io(const char* found) {
  return make_error(ErrorCode::unsupported,
                    std::string("settle: ") + found +
                        ", so the kernel or a device may write to memory while it is moved; name "
                        "what is registered in .leave, let I/O end, and set .io_is_at_rest");
}

Expected<void> check_process(const SettleOptions& options) {
  if (const char* name = sanitizer()) {
    return make_error(ErrorCode::unsupported,
                      std::string("settle: ") + name + " keeps its own records of memory");
  }
  if (const int page = getpagesize(); page != static_cast<int>(arch::kPage)) {
    return make_error(ErrorCode::unsupported,
                      "settle: this kernel has pages of " + std::to_string(page) +
                          " bytes; settle() and reshare() need one with pages of 4096");
  }
  if (shares_memory()) {
    return make_error(
        ErrorCode::unsupported,
        "settle: another process has the same memory, as after vfork(2); call it in a "
        "process with memory of its own");
  }
  bool has_valgrind = false;
  AsynchronousIo io;
  std::array<char, 8192> buffer;
  const int error = visit_maps(buffer, [&](const MapsLine& line) {
    has_valgrind = has_valgrind || line.name.find("/vgpreload_") != line.name.npos;
    io.note(line);  // also after setuid(2)
  });
  if (error != 0) return system_error("settle: /proc/self/maps", error);
  if (has_valgrind)
    return make_error(ErrorCode::unsupported, "settle: valgrind keeps its own records of memory");
  if (!options.io_is_at_rest) {
    if (const char* found = has_io_ring() ? kIoRing : io.found()) return refuse_io(found);
  }
  if (options.threads == OtherThreads::refuse) {
    if (const std::string names = internal::other_threads(); !names.empty()) {
      return make_error(ErrorCode::threads_running,
                        "settle: other threads may write to memory while it is moved: " + names +
                            "; end them, or set .threads = OtherThreads::stop");
    }
  }
  return {};
}

}  // namespace cowshed::settling
