#include <csignal>
#include <optional>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/base/try.h>
#include <cowshed/cow/command.h>
#include <cowshed/tools/cowtop/doctor/self_test.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kSharedPages = 1000;
constexpr useconds_t kLingerUs = 500'000;

// Runs a child.  Two children differ only in `pages`.
[[noreturn]] void be_child(volatile char* memory, std::size_t pages) {
  for (std::size_t i = 0; i < pages; ++i) memory[i * cow::kPageSize] = 2;
  ::usleep(kLingerUs);
  ::_exit(0);
}

// Returns in the parent after the child's end.  So the child, and not the parent, copies their
// stack and their C library's data.
long fork_and_stand_still() { return ::syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0); }

std::optional<std::uint64_t> copies_of(const cow::Measurement& measurement, std::size_t child) {
  for (const cow::ProcessCopies& process : measurement.processes)
    if (process.role == cow::Role::child && child-- == 0) return process.copied_anon_pages;
  return std::nullopt;
}

}  // namespace

void be_ground_truth() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  void* mapped = ::mmap(nullptr, kSharedPages * cow::kPageSize, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return;
  auto* memory = static_cast<volatile char*>(mapped);
  for (std::size_t i = 0; i < kSharedPages; ++i) memory[i * cow::kPageSize] = 1;
  for (const std::size_t pages : {std::size_t{0}, std::size_t{kGroundTruthPages}})
    if (fork_and_stand_still() == 0) be_child(memory, pages);
  while (::wait(nullptr) > 0) {
  }
}

Expected<std::uint64_t> measure_ground_truth(cow::Backend& backend) {
  ::signal(SIGCHLD, SIG_DFL);  // if it is ignored, wait() does not work
  auto command = cow::Command::fork({"/proc/self/exe", "doctor", kGroundTruthWord});
  if (!command) return tl::make_unexpected(command.error());
  TRY_VOID(backend.track_command(command->pid()));
  TRY_VOID(command->release());
  pollfd ended{command->pidfd(), POLLIN, 0};
  do {
    TRY_VOID(backend.sample());
  } while (::poll(&ended, 1, static_cast<int>(backend.interval().count())) == 0);
  TRY_VOID(backend.sample());
  TRY_VOID(command->wait());
  const cow::Measurement measurement = backend.measurement();
  const auto none = copies_of(measurement, 0);
  const auto some = copies_of(measurement, 1);
  if (!none || !some)
    return make_error(ErrorCode::unsupported, "did not see both children of the ground truth");
  if (*some < *none) {
    return make_error(ErrorCode::unsupported,
                      "saw fewer copies of the child that copies than of the one that does not");
  }
  return *some - *none;
}

}  // namespace cowshed::cowtop
