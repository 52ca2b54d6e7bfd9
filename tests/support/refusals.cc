#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/refusals.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {
namespace {

constexpr sock_filter load(std::size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset));
}

// Goes on at the next step where it is that value, else so many further.
constexpr sock_filter go_on_if(unsigned long value, std::uint8_t else_skip) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(value), 0, else_skip);
}

}  // namespace

void refuse_call(long number, std::optional<Argument> where, int error) {
  std::vector<sock_filter> code = {load(offsetof(seccomp_data, nr)),
                                   go_on_if(static_cast<unsigned long>(number), where ? 3 : 1)};
  if (where) {
    code.push_back(load(offsetof(seccomp_data, args) + where->index * sizeof(std::uint64_t)));
    code.push_back(go_on_if(where->value, 1));
  }
  code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error)));
  code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) ::_exit(124);
}

void refuse_call(long number) { refuse_call(number, std::nullopt, EPERM); }

void refuse_request(unsigned long request) {
  refuse_call(SYS_ioctl, Argument{1, static_cast<std::uint32_t>(request)}, EPERM);
}

void enter_user_namespace() {
  const std::string user = "0 " + std::to_string(::geteuid()) + " 1";
  const std::string group = "0 " + std::to_string(::getegid()) + " 1";
  if (::unshare(CLONE_NEWUSER) != 0 || !write_file("/proc/self/uid_map", user) ||
      !write_file("/proc/self/setgroups", "deny") || !write_file("/proc/self/gid_map", group)) {
    ::_exit(124);
  }
}

}  // namespace cowshed::test
