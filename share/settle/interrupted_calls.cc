#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <linux/futex.h>
#include <string_view>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cowshed/share/settle/interrupted_calls.h>

namespace cowshed::settling {
namespace {

// Removes a number from the beginning of `text`: "7 0x7ffc ...".
bool take_number(std::string_view& text, std::uint64_t& number) {
  const bool is_hexadecimal = text.starts_with("0x");
  if (is_hexadecimal) text.remove_prefix(2);
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, is_hexadecimal ? 16 : 10);
  if (error != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (!text.empty()) text.remove_prefix(1);
  return true;
}

bool is_endless(std::uint64_t milliseconds) { return static_cast<int>(milliseconds) < 0; }

}  // namespace

std::optional<arch::SystemCall> call_of(int tasks, const char* name) noexcept {
  std::array<char, 256> text;
  std::snprintf(text.data(), text.size(), "%.20s/syscall", name);
  const long file = syscall(SYS_openat, tasks, text.data(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  const long size = syscall(SYS_read, file, text.data(), text.size());
  syscall(SYS_close, file);
  std::string_view rest(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  arch::SystemCall call;
  bool is_known = take_number(rest, call.number);  // not "running"
  for (std::uint64_t& argument : call.arguments) is_known = is_known && take_number(rest, argument);
  is_known = is_known && take_number(rest, call.stack_pointer) && take_number(rest, call.next);
  return is_known ? std::optional(call) : std::nullopt;
}

std::optional<arch::SystemCall> rest_of(arch::SystemCall call) noexcept {
  auto& arguments = call.arguments;
  bool goes_on = false;
  switch (call.number) {
#ifdef SYS_pause  // the older calls of x86-64
    case SYS_pause:
    case SYS_select: goes_on = true; break;
    case SYS_poll: goes_on = is_endless(arguments[2]); break;
    case SYS_epoll_wait: goes_on = is_endless(arguments[3]); break;
#endif
    case SYS_rt_sigsuspend:
    case SYS_semop:
    case SYS_msgsnd:
    case SYS_msgrcv:
    case SYS_pselect6:  // these two store what is left
    case SYS_ppoll: goes_on = true; break;
    case SYS_nanosleep:
      goes_on = arguments[1] != 0;
      arguments[0] = arguments[1];
      break;
    case SYS_clock_nanosleep:
      goes_on = arguments[3] != 0 || (arguments[1] & TIMER_ABSTIME) != 0;
      if ((arguments[1] & TIMER_ABSTIME) == 0) arguments[2] = arguments[3];
      break;
    case SYS_epoll_pwait: goes_on = is_endless(arguments[3]); break;
    case SYS_rt_sigtimedwait: goes_on = arguments[2] == 0; break;
    case SYS_semtimedop: goes_on = arguments[3] == 0; break;
    case SYS_futex:  // until a moment
      goes_on = (arguments[1] & static_cast<unsigned>(FUTEX_CMD_MASK)) == FUTEX_WAIT_BITSET;
      break;
    default: break;
  }
  return goes_on ? std::optional(call) : std::nullopt;
}

}  // namespace cowshed::settling
