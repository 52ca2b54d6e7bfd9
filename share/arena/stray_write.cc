#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <mutex>
#include <sched.h>
#include <string_view>
#include <sys/syscall.h>
#include <unistd.h>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/standard_error.h>
#include <cowshed/share/arena/table.h>
#include <cowshed/share/os/fork_state.h>
#include <cowshed/share/process/published_layout.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/stray_write.h>

namespace cowshed {
namespace {

std::atomic<StrayWriteCallback> callback = nullptr;
std::atomic<void*> callback_context = nullptr;
COWSHED_FORK_STATE std::atomic<StrayWrite*> sink = nullptr;
COWSHED_FORK_STATE std::atomic<void (*)() noexcept> sink_done = nullptr;
// A process that a worker forks must not report as the worker.
COWSHED_FORK_STATE std::atomic<pid_t> sink_owner = 0;

std::atomic<bool> installed = false;
struct sigaction previous = {};  // written once, before the handler can run

// Text that a signal handler can make.
class Line {
 public:
  Line& put(std::string_view text) {
    size_ += text.copy(text_.data() + size_, text_.size() - size_);
    return *this;
  }
  Line& put(const std::array<char, 64>& field) {  // of a worker, which may be hostile
    return put(std::string_view(field.data(), strnlen(field.data(), field.size())));
  }
  Line& put(std::uint64_t number, int base = 10) {
    const auto end = std::to_chars(text_.data() + size_, text_.data() + text_.size(), number, base);
    size_ = static_cast<std::size_t>(end.ptr - text_.data());
    return *this;
  }
  // "wrote to frozen arena ..."
  Line& put(const StrayWrite& write) {
    put(write.inherited ? "wrote to frozen arena '" : "used arena '").put(write.arena);
    put("' at 0x").put(write.address, 16);
    if (write.object[0] != '\0')
      put(" (object '").put(write.object).put("' + ").put(write.object_offset).put(")");
    else if (write.owner[0] != '\0') put(" (memory of '").put(write.owner).put("', most likely)");
    return put(write.inherited ? "; copy what is to be changed, or freeze leniently"
                               : ", which was not frozen when this process was forked; freeze() it "
                                 "before the fork");
  }
  std::string_view text() const { return {text_.data(), size_}; }

 private:
  std::array<char, 512> text_{};
  std::size_t size_ = 0;
};

// The processes that have begun to write the line, and have written it.
std::atomic<pid_t> line_begun = 0;
std::atomic<pid_t> line_written = 0;

// Writes one line to standard error, once in a process.  Returns when it is written, because the
// process dies then.
[[gnu::noinline]] void write_line(const StrayWrite& write) {
  const pid_t self = getpid();
  if (line_begun.exchange(self) == self) {
    while (line_written != self) sched_yield();  // another thread is at it
    return;
  }
  Line line;
  line.put("cowshed: process ").put(static_cast<std::uint64_t>(self)).put(" ").put(write);
  if (write.inherited) {
    line.put(
        ". Did a destructor write? Make the object by ArenaScope::make() or Arena::make(), which "
        "nothing destroys. Else run the program under cowtop, which names the line of code.");
  }
  line.put("\n");
  internal::write_to_standard_error(line.text());
  line_written = self;
}

// Also in a thawed arena, whose open part begins behind the frozen one.
bool is_frozen_at(const internal::ArenaCore& arena, std::uintptr_t address) {
  return arena.generation() != 0 && arena.mode() == FreezeMode::strict &&
         address < arena.open_begin();
}

// Returns whether the instruction can run again.
bool report(const siginfo_t& info, const void* context) {
  if (info.si_code != SEGV_ACCERR && info.si_code != SEGV_MAPERR) return false;
  internal::ArenaCore* arena = internal::find_arena(info.si_addr);
  if (arena == nullptr) return false;
  StrayWrite write{};
  write.address = reinterpret_cast<std::uintptr_t>(info.si_addr);
  write.inherited = !arena->lacks(write.address);
  if (write.inherited) {
    if (info.si_code != SEGV_ACCERR || !arch::is_interrupted_store(context) ||
        !is_frozen_at(*arena, write.address)) {
      return false;
    }
    if (arena->let_destructors_write(info.si_addr)) return true;
  }
  write.arena_offset = write.address - arena->begin();
  layout::set_text(write.arena, arena->name());
  write.instruction = arch::interrupted_instruction(context);
  if (const layout::Object* object = layout::object_at(write.address)) {
    write.object = std::to_array(object->name);
    write.object_offset = write.address - object->address;
  } else if (const auto* only = layout::only_object_in(arena->begin(), arena->end())) {
    write.owner = std::to_array(only->name);
  }
  const StrayWriteCallback function = callback.load();
  if (StrayWrite* copy = sink.load(); copy != nullptr && sink_owner == getpid()) {
    *copy = write;
    sink_done.load()();
  } else if (function == nullptr) {
    write_line(write);
  }
  if (function != nullptr) function(write, callback_context.load());
  return false;
}

// Does what the kernel would have done without our handler.
void pass_on(int signal, siginfo_t* info, void* context) {
  const bool simple = (previous.sa_flags & SA_SIGINFO) == 0;
  const bool sent = info->si_code <= 0;  // by kill() and the like: no instruction raises it again
  if (simple && previous.sa_handler == SIG_IGN && sent) return;
  if (simple && (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN)) {
    struct sigaction standard = {};
    standard.sa_handler = SIG_DFL;
    sigaction(signal, &standard, nullptr);
    // A faulting instruction runs again, and the process dies.  A signal that was sent is sent
    // again, and is pending until this handler returns.
    if (sent) syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), signal, info);
    return;
  }
  // The kernel puts the thread's mask back when our handler returns.
  sigset_t mask = previous.sa_mask;
  pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  if ((previous.sa_flags & SA_NODEFER) != 0) {
    sigemptyset(&mask);
    sigaddset(&mask, signal);
    pthread_sigmask(SIG_UNBLOCK, &mask, nullptr);
  }
  const struct sigaction action = previous;
  if ((static_cast<unsigned>(previous.sa_flags) & SA_RESETHAND) != 0) {  // once only
    previous.sa_flags = 0;
    previous.sa_handler = SIG_DFL;
  }
  if (simple) action.sa_handler(signal);
  else action.sa_sigaction(signal, info, context);
}

void handle(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  if (!report(*info, context)) pass_on(signal, info, context);
  errno = saved_errno;
}

}  // namespace

void set_stray_write_callback(StrayWriteCallback function, void* context) {
  callback = nullptr;  // so that none is called with the wrong context
  callback_context = context;
  callback = function;
}

std::string to_string(const StrayWrite& write) { return std::string(Line().put(write).text()); }

int internal::install_stray_write_handler() {
  // Not a static of this function: a child forked during its initialisation would wait for ever.
  if (installed.load(std::memory_order_acquire)) return 0;
  const std::lock_guard lock(process_tree::mutex());
  if (installed.load(std::memory_order_relaxed)) return 0;
  if (sigaction(SIGSEGV, nullptr, &previous) != 0) return errno;
  struct sigaction ours = {};
  ours.sa_sigaction = &handle;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&ours.sa_mask);
  if (sigaction(SIGSEGV, &ours, nullptr) != 0) return errno;
  installed.store(true, std::memory_order_release);
  return 0;
}

void internal::set_stray_write_sink(StrayWrite* copy, void (*done)() noexcept) {
  sink_done = done;
  sink_owner = getpid();
  sink = copy;
}

}  // namespace cowshed
