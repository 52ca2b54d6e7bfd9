#include "system_call_failures.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <mutex>
#include <sys/ioctl.h>

#include <cowshed/tests/support/scale.h>

namespace cowshed::test {
namespace {

struct Intercepted {
  long number;
  const char* name;
  int telling;  // the argument that tells what it is about, or -1
};
constexpr std::array<Intercepted, 9> kIntercepted = {{{SYS_memfd_create, "memfd_create", -1},
                                                      {SYS_mmap, "mmap", 3},
                                                      {SYS_madvise, "madvise", 2},
                                                      {SYS_fcntl, "fcntl", 1},
                                                      {SYS_ftruncate, "ftruncate", -1},
                                                      {SYS_fallocate, "fallocate", 1},
                                                      {SYS_membarrier, "membarrier", 0},
                                                      {SYS_openat, "openat", -1},
                                                      {SYS_ioctl, "ioctl", 1}}};

std::mutex verdict_mutex;
Verdict verdict;

int decide(const SystemCall& call) {
  const std::lock_guard lock(verdict_mutex);
  return verdict ? verdict(call) : 0;
}

void supervise(std::atomic<int>& listener) {
  listener.wait(-1);
  for (;;) {
    seccomp_notif request{};
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) != 0)
      continue;  // the caller has died, or a signal came
    SystemCall call{request.data.nr, {}};
    std::copy_n(request.data.args, call.arguments.size(), call.arguments.begin());
    seccomp_notif_resp response{};
    response.id = request.id;
    response.error = -decide(call);
    response.flags = response.error == 0 ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0;
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
  }
}

int install_filter() {
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const Intercepted& call : kIntercepted) {
    program.push_back(
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call.number), 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter = {static_cast<unsigned short>(program.size()), program.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return static_cast<int>(
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter));
}

}  // namespace

std::string intercept_system_calls() {
  if (kSanitized) return "the sanitizer's own system calls would fail too";
  static std::atomic<int> listener = -1;
  // Started first, so that the filter is not its own.
  std::thread(supervise, std::ref(listener)).detach();
  const int fd = install_filter();
  if (fd < 0) return std::string("seccomp user notification: ") + std::strerror(errno);
  listener = fd;
  listener.notify_one();
  return "";
}

void decide_system_calls(Verdict next) {
  const std::lock_guard lock(verdict_mutex);
  verdict.swap(next);  // what it was goes without the lock, which the supervisor may need then
}

std::string describe(const SystemCall& call) {
  const auto found =
      std::find_if(kIntercepted.begin(), kIntercepted.end(),
                   [&](const Intercepted& known) { return known.number == call.number; });
  if (found == kIntercepted.end()) return std::to_string(call.number);
  const std::string argument =
      found->telling < 0
          ? ""
          : std::to_string(call.arguments.at(static_cast<std::size_t>(found->telling)));
  return std::string(found->name) + "(" + argument + ")";
}

}  // namespace cowshed::test
