#include <array>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attacks.h"

namespace cowshed::test {
namespace {

int write_memory(const Target& target) {
  const std::string path = "/proc/" + std::to_string(target.victim) + "/mem";
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  return fd < 0 ? errno
                : error_of(pwrite(fd, payload(), kPayloadSize,
                                  reinterpret_cast<std::intptr_t>(target.address)));
}

int poke(const Target& target) {
  if (ptrace(PTRACE_SEIZE, target.victim, nullptr, nullptr) == -1) {
    return errno;
  }
  need(ptrace(PTRACE_INTERRUPT, target.victim, nullptr, nullptr), "PTRACE_INTERRUPT");
  need(waitpid(target.victim, nullptr, __WALL), "waiting for the stop");
  const int error = error_of(ptrace(PTRACE_POKEDATA, target.victim, target.address, -1L));
  need(ptrace(PTRACE_DETACH, target.victim, nullptr, nullptr), "PTRACE_DETACH");
  return error;
}

int open_process(pid_t pid) {
  return static_cast<int>(need(syscall(SYS_pidfd_open, pid, 0), "pidfd_open"));
}

template <int Advice>
int advise_victim(const Target& target) {
  const iovec range = {target.address, target.size};
  return error_of(syscall(SYS_process_madvise, open_process(target.victim), &range, 1, Advice, 0));
}

int take_descriptor(const Target& target) {
  const auto fd =
      static_cast<int>(syscall(SYS_pidfd_getfd, open_process(target.owner), target.owners_fd, 0));
  return fd < 0 ? errno : error_of(pwrite(fd, payload(), kPayloadSize, target.offset));
}

}  // namespace

std::vector<Attack> attacks_on_a_sibling(Privileges may) {
  const Outcome victim = may.ptrace ? allowed(Effect::victims_view) : refused(EPERM);
  const Outcome all = may.ptrace ? allowed(Effect::all) : refused(EPERM);
  const Outcome opened = may.ptrace ? allowed(Effect::victims_view) : refused(EACCES);
  const Outcome opened_all = may.ptrace ? allowed(Effect::all) : refused(EACCES);
  const Outcome nice = may.nice ? allowed(Effect::nothing) : refused(EPERM);
  const Outcome not_remote = refused(EINVAL);
  return {
      {"process_vm_writev",
       [](const Target& t) {
         const iovec from = {const_cast<std::byte*>(payload()), kPayloadSize};
         const iovec to = {t.address, kPayloadSize};
         return error_of(process_vm_writev(t.victim, &from, 1, &to, 1, 0));
       },
       {may.ptrace ? refused(EFAULT) : refused(EPERM)},
       {victim},
       {all}},
      // As with /proc/self/mem.
      {"/proc/PID/mem", &write_memory, {opened, refused(EIO)}, {opened}, {opened_all}},
      {"ptrace, PTRACE_POKEDATA", &poke, {victim}, {victim}, {all}},
      {"process_madvise, MADV_PAGEOUT", &advise_victim<MADV_PAGEOUT>, {nice}, {nice}, {nice}},
      {"process_madvise, MADV_DONTNEED",
       &advise_victim<MADV_DONTNEED>,
       {not_remote, refused(EPERM)},
       {not_remote, refused(EPERM)},
       {not_remote, refused(EPERM)}},
      {"pidfd_getfd, then pwrite", &take_descriptor, {refused(EPERM)}, {refused(EPERM)}, {all}},
  };
}

}  // namespace cowshed::test
