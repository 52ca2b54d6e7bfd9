// What libcowshed_undo.so does in the program that it is preloaded into: fork handlers, madvise()
// and mremap() that know settled memory, and prctl() and syscall() that notice a sandbox.
#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <new>
#include <pthread.h>
#include <string>
#include <string_view>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>
#include <vector>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/size_literals.h>
#include <cowshed/base/standard_error.h>
#include <cowshed/share/jemalloc/jemalloc.h>
#include <cowshed/share/settle.h>
#include <cowshed/share/settle/heap_layout.h>
#include <cowshed/share/settle/mappings.h>
#include <cowshed/share/settle/plan.h>
#include <cowshed/share/undo/signal_handlers.h>
#include <cowshed/share/undo/undoer.h>

// There is none in this library whose locks a fork would have to take.
void cowshed::jemalloc::initialise() {}

namespace cowshed::undo {
namespace {

using namespace size_literals;
using arch::kPage;
using settling::MapsLine;
using settling::Range;

// Of the environment when the program begins, which it may change.
bool is_on = false;       // until settle() is refused
bool is_for_all = false;  // else for Python before 3.12
std::size_t above = 64_MiB;
double cpu_share = 0.01;
std::array<char, PATH_MAX> log_file = {};

std::atomic<std::size_t> moved_bytes = 0;
std::atomic<bool> has_thread = false;
bool is_left_alone = false;  // this fork
bool has_own_malloc = false;
pid_t process = 0;

// Counts calls of settle(), which move memory while other threads are anywhere, such as between a
// look at the mappings and the system call that follows it.
class SettleCalls {
 public:
  class Call {
   public:
    explicit Call(SettleCalls& calls) : calls_(calls) { ++calls_.begun_; }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() { ++calls_.ended_; }

   private:
    SettleCalls& calls_;
  };

  void forget_other_threads() { ended_ = begun_.load(); }  // in a child
  bool have_begun() const { return begun_ > 0; }

  // Whether one has gone on since this was made.
  class Since {
   public:
    explicit Since(const SettleCalls& calls)
        : calls_(calls), begun_(calls.begun_), goes_on_(calls.ended_ != begun_) {}
    explicit operator bool() const { return goes_on_ || calls_.begun_ != begun_; }

   private:
    const SettleCalls& calls_;
    unsigned begun_;
    bool goes_on_;
  };

 private:
  std::atomic<unsigned> begun_ = 0;
  std::atomic<unsigned> ended_ = 0;
};
SettleCalls settle_calls;

template <class Number>
void read_number(const char* name, Number& number) {
  if (const char* text = std::getenv(name)) std::from_chars(text, text + std::strlen(text), number);
}

void log(std::string_view text) {
  if (std::string_view(log_file.data()) == "none") return;
  std::array<char, PIPE_BUF> line;
  const int size =
      std::snprintf(line.data(), line.size(), "cowshed: PID %d: %.*s\n", getpid(),
                    static_cast<int>(std::min<std::size_t>(text.size(), 2048)), text.data());
  internal::write_line({line.data(), static_cast<std::size_t>(size)}, log_file.data());
}

void log_end(std::string_view reason) {
  log(std::string("undoes no more copies: ").append(reason));
}

// 11 of Python 3.11; 0 of another program.
int python_minor() {
  const auto version =
      reinterpret_cast<const char* (*)()>(dlsym(RTLD_DEFAULT, "Py_GetVersion"));  // needs no GIL
  int minor = 0;
  if (version != nullptr) std::sscanf(version(), "3.%d", &minor);
  return minor;
}

// The last Python in which no freeze keeps reading from writing reference counts.
constexpr int kLastThatCounts = 11;

bool is_for_this_program() {
  if (is_for_all) return true;
  const int minor = python_minor();
  return minor > 0 && minor <= kLastThatCounts;
}

// Not by status_bytes(), which takes longer: most processes that fork are small.
std::size_t own_bytes() {
  const int file = ::open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  std::array<char, 128> text = {};
  unsigned long resident = 0;
  unsigned long shared = 0;
  if (file >= 0 && ::read(file, text.data(), text.size() - 1) > 0)
    std::sscanf(text.data(), "%*u %lu %lu", &resident, &shared);
  if (file >= 0) ::close(file);
  return (resident - std::min(resident, shared)) * kPage;
}

// Private memory of allocators that get it from mmap(2): Python's arenas, PHP's chunks, Ruby's
// pages, and malloc's if that is not glibc's, which may also have it from brk(2).  Nothing proves
// whose it is.  They bear the move, because madvise() below gives zeros. The kernel joins them with
// the memory of this thread's variables, which stays.
std::vector<std::span<const std::byte>> private_ranges(bool with_brk) {
  constexpr std::size_t kAround = 64_KiB;
  const Range variables = settling::variables_of_this_thread();
  const Range of_thread = {variables.begin / kPage * kPage - kAround,
                           variables.end / kPage * kPage + kAround};
  struct sysinfo machine{};
  sysinfo(&machine);
  const std::size_t most = std::size_t{machine.totalram} * machine.mem_unit;  // or it is reserved
  std::vector<std::span<const std::byte>> ranges;
  ranges.reserve(4096);
  std::uintptr_t end_of_guard = 0;  // below a stack
  Range owned;
  std::array<char, 8192> buffer;
  const auto add = [&](const Range& range) {
    if (range.begin < range.end && range.size() >= 128_KiB && ranges.size() < ranges.capacity())
      ranges.push_back(settling::span_of(range));
  };
  settling::visit_lines("/proc/thread-self/smaps", buffer, [&](std::string_view text) {
    if (text.starts_with("VmFlags:")) {
      // Of MAP_STACK, since Linux 6.7: a stack of glibc 2.42 has its guard pages within.
      const bool may_be_stack = text.find(" nh") != text.npos || text.find(" gu") != text.npos;
      if (may_be_stack) return;
      add({owned.begin, std::min(owned.end, of_thread.begin)});
      add({std::max(owned.begin, of_thread.end), owned.end});
      return;
    }
    if (!settling::is_header(text)) return;
    const MapsLine line = settling::parse_maps_line(text);
    const bool is_stack = line.name == "[stack]" || line.range.begin == end_of_guard;
    if (line.permissions == "---p") end_of_guard = line.range.end;
    const bool is_owned =
        line.name.empty() || line.name.starts_with("[anon:") || (with_brk && line.name == "[heap]");
    const bool is_movable = line.is_private_and_writable() && line.is_anonymous && is_owned &&
                            !is_stack && line.range.size() <= most;
    owned = is_movable ? line.range : Range{};
  });
  return ranges;
}

// One that is linked into the program may register its fork handlers after ours, which then run
// while it holds its locks: they must not allocate.
bool is_malloc_of_the_program() {
  const std::string malloc = settling::foreign_malloc();
  Dl_info program{};
  return !malloc.empty() && (dladdr(reinterpret_cast<void*>(getauxval(AT_ENTRY)), &program) == 0 ||
                             malloc.starts_with(program.dli_fname));
}

Expected<Settled> settle_all() {
  const SettleCalls::Call call(settle_calls);
  return settle({.also = private_ranges(!settling::foreign_malloc().empty()),
                 .threads = OtherThreads::stop,
                 .stop_timeout = std::chrono::milliseconds(250)});
}

void settle_before_fork() {
  if (own_bytes() < std::max(above, moved_bytes.load())) return;
  if (has_own_malloc) {
    is_on = false;
    return log("undoes no copies: malloc is the program's own; it takes a library's");
  }
  if (!is_for_this_program()) return;
  if (is_any_thread_in_sandbox()) {
    is_on = false;
    return log("undoes no copies: a thread has entered a sandbox");
  }
  const auto settled = settle_all();
  if (settled && settled->moved_bytes > 0) {
    moved_bytes += settled->moved_bytes;
    std::array<char, 128> text;
    std::snprintf(text.data(), text.size(), "undoes copies: settled %.1f MiB in %.2f s",
                  static_cast<double>(settled->moved_bytes) / 1_MiB,
                  std::chrono::duration<double>(settled->time).count());
    log(text.data());
  } else if (moved_bytes > 0) {
    moved_bytes += above;  // such as a thread that waits in the kernel: later again
  } else if (settled || settled.error().code != ErrorCode::in_use) {  // not: another thread forks
    is_on = false;
    log(std::string("undoes no copies: ")
            .append(settled ? "there is no memory that settles" : settled.error().message));
  }
}

void before_fork() {
  if (!is_on || (moved_bytes == 0 && own_bytes() < above)) return;
  const int error = errno;
  is_left_alone = is_in_signal_handler();
  try {
    if (!is_left_alone) settle_before_fork();
  } catch (const std::bad_alloc&) {  // a limit on memory: another time
    is_left_alone = true;
  }
  errno = error;
}

void start() {
  if (!is_on || has_thread || is_left_alone || moved_bytes == 0) return;
  if (is_any_thread_in_sandbox()) is_on = false;
  else has_thread = start_thread(cpu_share, log_end);
}

// Newer Pythons warn at each fork of a process with threads.
void start_in_parent() {
  if (moved_bytes > 0 && !has_thread && python_minor() <= kLastThatCounts) start();
}

void start_in_child() {
  has_thread = false;
  process = getpid();
  settle_calls.forget_other_threads();
  start();
}

// A sandbox may end the process at the next call that it would not make without us.  A child that
// clone(2) has made has none of the threads.
void begin_sandbox() {
  if (!is_on) return;
  is_on = false;
  if (getpid() == process && has_thread.exchange(false)) end_thread();
  else if (own_bytes() >= above && is_for_this_program())
    log("undoes no copies: the process enters a sandbox");
}

using SystemCall = long (*)(long, long, long, long, long, long, long);
std::atomic<SystemCall> libc_syscall = nullptr;

SystemCall find_libc_syscall() {
  if (libc_syscall == nullptr)
    libc_syscall = reinterpret_cast<SystemCall>(dlsym(RTLD_NEXT, "syscall"));
  return libc_syscall;
}

// Without a program, they ask what the kernel knows.
bool begins_sandbox(long number, const std::array<long, 6>& given) {
  if (number == SYS_prctl && given[0] == PR_SET_SECCOMP)
    return given[1] != SECCOMP_MODE_FILTER || given[2] != 0;
  return number == SYS_seccomp && (given[0] == SECCOMP_SET_MODE_STRICT ||
                                   (given[0] == SECCOMP_SET_MODE_FILTER && given[2] != 0));
}

// Runs before the program registers handlers, so theirs take their locks first and ours run last.
[[gnu::constructor]] void begin() {
  find_libc_syscall();
  const char* mode = std::getenv("COWSHED");
  if (mode != nullptr && std::strcmp(mode, "off") == 0) return;
  is_for_all = std::getenv("COWSHED_UNDO") != nullptr;
  read_number("COWSHED_UNDO", cpu_share);
  read_number("COWSHED_ABOVE", above);
  if (const char* file = std::getenv("COWSHED_LOG"))
    std::strncpy(log_file.data(), file, log_file.size() - 1);
  note_sandbox();
  process = getpid();
  find_restorer_of_libc();
  has_own_malloc = is_malloc_of_the_program();
  if (has_own_malloc && !is_for_all) return;
  std::free(std::malloc(1));  // so that malloc registers its handlers before ours
  is_on = pthread_atfork(before_fork, start_in_parent, start_in_child) == 0;
}

std::size_t whole_pages(std::size_t size) { return (size + kPage - 1) / kPage * kPage; }

// Set where a new mapping would lose what the program has asked for settled memory.
std::atomic<bool> has_attributes = false;

int protection_of(std::string_view permissions) {
  return (permissions[0] == 'r' ? PROT_READ : 0) | (permissions[1] == 'w' ? PROT_WRITE : 0) |
         (permissions[2] == 'x' ? PROT_EXEC : 0);
}

Range within(const Range& given, const MapsLine& line) {
  return {std::max(line.range.begin, given.begin), std::min(line.range.end, given.end)};
}

// Calls visit(range, permissions) for settled memory in `given`.  Returns 0 or an errno.
template <class Visit>
int visit_settled(const Range& given, Visit visit) {
  std::array<char, 4608> buffer;  // the caller's stack may be small
  return settling::visit_maps(buffer, [&](const MapsLine& line) {
    const Range part = within(given, line);
    if (line.is_settled() && part.begin < part.end) visit(part, line.permissions);
  });
}

bool is_swap_used() {
  struct sysinfo machine{};
  return sysinfo(&machine) != 0 || machine.freeswap < machine.totalswap;
}

// Returns 0 or an errno.
int write_zeros(const Range& range, std::string_view permissions) {
  auto* const memory = reinterpret_cast<std::byte*>(range.begin);
  const bool is_open = permissions == "rw-p";
  if (!is_open && mprotect(memory, range.size(), PROT_READ | PROT_WRITE) != 0) return errno;
  // mincore(2) does not know the pages of a memfd that are in swap.
  const bool is_unknown = is_swap_used();
  std::array<unsigned char, 256> is_there;
  for (std::size_t at = 0; at < range.size(); at += is_there.size() * kPage) {
    const std::size_t count = std::min(is_there.size(), (range.size() - at) / kPage);
    if (is_unknown || mincore(memory + at, count * kPage, is_there.data()) != 0) is_there.fill(1);
    for (std::size_t i = 0; i < count; ++i)
      if ((is_there[i] & 1U) != 0) std::memset(memory + at + i * kPage, 0, kPage);
  }
  return is_open || mprotect(memory, range.size(), protection_of(permissions)) == 0 ? 0 : errno;
}

// Gives settled memory zeros: by empty pages in its place or, if it is small and there are many
// such mappings, or children or dumps shall be without it, by writing.  Returns 0 or an errno.
enum class Zeros : std::uint8_t { as_is_best, mapped };
int give_zeros(const Range& given, Zeros zeros = Zeros::as_is_best) {
  constexpr unsigned kMostMappings = 256;  // each call reads them all
  static std::atomic<unsigned> mappings = 0;
  int failed = 0;
  const int error = visit_settled(given, [&](const Range& part, std::string_view permissions) {
    const bool is_small = part.size() < 1_MiB && permissions == "rw-p";
    const bool are_mapped = !has_attributes && !(is_small && ++mappings > kMostMappings);
    int refused = 0;
    if (zeros == Zeros::as_is_best && !are_mapped) {
      refused = write_zeros(part, permissions);
    } else if (mmap(reinterpret_cast<void*>(part.begin), part.size(), protection_of(permissions),
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
      refused = errno;
    }
    failed = std::max(failed, refused);
  });
  return error != 0 ? error : failed;
}

int advise(const Range& range, int advice) {
  return static_cast<int>(
      syscall(SYS_madvise, reinterpret_cast<void*>(range.begin), range.size(), advice));
}

// An madvise(2) that fails has dropped what comes before memory that is locked, and what lies
// around holes.
void give_zeros_as_far_as(const Range& given, int advice) {
  bool has_ended = given.begin % kPage != 0;  // else it does nothing
  std::array<char, 4608> buffer;
  settling::visit_maps(buffer, [&](const MapsLine& line) {
    const Range part = within(given, line);
    if (has_ended || part.begin >= part.end) return;
    has_ended = advise(part, advice) != 0;
    if (!has_ended && line.is_settled()) give_zeros(part);
  });
}

}  // namespace
}  // namespace cowshed::undo

// Owners of memory expect zeros where they gave it back.  Settled memory would be as it was when it
// was settled.  Allocates nothing.  Where /proc is hidden, the call fails and the memory stays.
extern "C" [[gnu::visibility("default")]] int madvise(void* address, std::size_t size,
                                                      int advice) noexcept {
  using namespace cowshed::undo;
  constexpr int kDontNeedLocked = 24;  // MADV_DONTNEED_LOCKED, since Linux 5.18
  constexpr int kGuard = 102;          // MADV_GUARD_INSTALL, since 6.13; a guard may go again
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  const Range given = {begin, begin + whole_pages(size)};
  const auto advise_all = [&](int it) {
    return static_cast<int>(syscall(SYS_madvise, address, size, it));
  };
  const bool drops = advice == MADV_DONTNEED || advice == MADV_FREE || advice == kDontNeedLocked;
  const bool is_for_children = advice == MADV_DONTFORK || advice == MADV_DONTDUMP;
  if (!drops && !is_for_children && advice != kGuard) return advise_all(advice);
  const SettleCalls::Since settles(settle_calls);
  bool is_settled = false;
  int error = 0;
  const auto look = [&] {
    if (settle_calls.have_begun())
      error = visit_settled(given, [&](const Range&, std::string_view) { is_settled = true; });
  };
  look();
  if (!drops) {
    int result = advise_all(advice);
    if (result == 0 && is_settled && is_for_children) has_attributes = true;
    if (result == 0 && is_settled && advice == kGuard && give_zeros(given, Zeros::mapped) == 0)
      result = advise_all(advice);
    return result;
  }
  if (error == 0 && !is_settled) {
    const int result = advise_all(advice);
    const int failed = errno;
    if (settles) look();
    if (error == 0 && !is_settled) {
      errno = failed;
      return result;
    }
  }
  const bool is_locked = error == 0 && advise_all(MADV_DONTNEED) != 0;
  if (is_locked && (advice != kDontNeedLocked || advise_all(advice) != 0)) {
    const int failed = errno;
    give_zeros_as_far_as(given, advice == kDontNeedLocked ? advice : MADV_DONTNEED);
    errno = failed;
    return -1;
  }
  if (error == 0) error = give_zeros(given);
  if (error == 0 && is_locked) return mlock2(address, size, MLOCK_ONFAULT);
  if (error == 0) return 0;
  errno = EAGAIN;
  return -1;
}

extern "C" [[gnu::visibility("default")]] void* mremap(void* address, std::size_t size,
                                                       std::size_t new_size, int flags,
                                                       ...) noexcept {
  using namespace cowshed::undo;
  va_list more;
  va_start(more, flags);
  void* const target = va_arg(more, void*);  // the kernel reads it if the flags say so
  va_end(more);
  const long result = syscall(SYS_mremap, address, size, new_size, flags, target);
  if (result == -1 || !settle_calls.have_begun()) return reinterpret_cast<void*>(result);
  const auto old = reinterpret_cast<std::uintptr_t>(address);
  if ((flags & MREMAP_DONTUNMAP) != 0 && give_zeros({old, old + whole_pages(size)}) != 0)
    std::memset(address, 0, whole_pages(size));
  if (new_size > size) {
    // The memfd has what lay behind it, or nothing.  New mappings would hinder the next mremap(2).
    const auto begin = static_cast<std::uintptr_t>(result);
    const Range added = {begin + whole_pages(size), begin + whole_pages(new_size)};
    if (is_swap_used()) give_zeros(added);
    else visit_settled(added, write_zeros);
  }
  return reinterpret_cast<void*>(result);
}

extern "C" [[gnu::visibility("default")]] long syscall(long number, ...) noexcept {
  using namespace cowshed::undo;
  va_list more;
  va_start(more, number);
  std::array<long, 6> given{};
  for (long& each : given) each = va_arg(more, long);
  va_end(more);
  if (begins_sandbox(number, given)) begin_sandbox();
  return find_libc_syscall()(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

extern "C" [[gnu::visibility("default")]] int prctl(int option, ...) noexcept {
  va_list more;
  va_start(more, option);
  std::array<long, 4> given{};
  for (long& each : given) each = va_arg(more, long);
  va_end(more);
  return static_cast<int>(syscall(SYS_prctl, option, given[0], given[1], given[2], given[3]));
}
