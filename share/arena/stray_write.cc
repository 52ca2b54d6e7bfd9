#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

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

bool is_store(const ucontext_t& context) {
  constexpr unsigned long long kWrite = 2;  // of the page fault's error code
  return (static_cast<unsigned long long>(context.uc_mcontext.gregs[REG_ERR]) & kWrite) != 0;
}

void report(const siginfo_t& info, const ucontext_t& context) {
  if (info.si_code != SEGV_ACCERR || !is_store(context)) return;
  const internal::ArenaCore* arena = internal::find_arena(info.si_addr);
  StrayWrite write{};
  write.address = reinterpret_cast<std::uintptr_t>(info.si_addr);
  // Also in a thawed arena, whose open part begins behind the frozen one.
  if (arena == nullptr || arena->generation() == 0 || arena->mode() != FreezeMode::strict ||
      write.address >= arena->open_begin()) {
    return;
  }
  write.arena_offset = write.address - arena->begin();
  layout::set_text(write.arena, arena->name());
  write.instruction = static_cast<std::uintptr_t>(context.uc_mcontext.gregs[REG_RIP]);
  if (const layout::Object* object = layout::object_at(write.address)) {
    write.object = object->name;
    write.object_offset = write.address - object->address;
  }
  if (StrayWrite* copy = sink.load(); copy != nullptr && sink_owner == getpid()) {
    *copy = write;
    sink_done.load()();
  }
  if (const StrayWriteCallback function = callback.load()) function(write, callback_context.load());
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
  report(*info, *static_cast<const ucontext_t*>(context));
  pass_on(signal, info, context);
  errno = saved_errno;
}

}  // namespace

void set_stray_write_callback(StrayWriteCallback function, void* context) {
  callback = nullptr;  // so that none is called with the wrong context
  callback_context = context;
  callback = function;
}

std::string to_string(const StrayWrite& write) {
  char address[32];
  std::snprintf(address, sizeof address, "0x%zx", write.address);
  std::string text = "wrote to frozen arena '" + layout::text_of(write.arena) + "' at " + address;
  if (write.object[0] != '\0') {
    text += " (object '" + layout::text_of(write.object) + "' + " +
            std::to_string(write.object_offset) + ")";
  }
  return text;
}

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
