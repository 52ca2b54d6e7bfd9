#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <sys/types.h>
#include <type_traits>
#include <utility>
#include <vector>

#include <cowshed/share/ref.h>

// Forked workers over frozen arenas.
//
//   void search(const cowshed::Worker& self, const Index& index, int depth);
//   auto workers = cowshed::start({.count = 8, .name = "search"}, search, ref, 3);
//   const auto exits = workers->wait();
//   for (const auto& exit : *exits) { ... }
namespace cowshed {

struct WorkersOptions {
  int count = 1;
  std::string name = "worker";
  // SIGKILL for a worker whose parent ended.  The kernel means the parent's *thread* that called
  // start(): with this set, call it from one that lives as long as the workers may.
  bool die_with_parent = true;
};

// What a worker knows of itself.
struct Worker {
  int rank;  // 0 to count - 1
  int count;
};

// What became of one.
struct WorkerExit {
  int rank = 0;
  pid_t pid = 0;
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;      // 0 when it exited
  std::string error;   // "" on exit code 0; else one line: an exception's what(), a stray write,
                       // a signal, another exit code
  std::uint64_t fork_ns = 0;  // how long fork() took in the parent

  bool ok() const { return exit_code == 0; }
};

// Owns the children: none is left as a zombie and no descriptor leaks.  Not thread-safe.
class Workers {
 public:
  struct State;
  explicit Workers(std::unique_ptr<State> state);
  Workers(Workers&&) noexcept;
  Workers& operator=(Workers&&) noexcept;
  // Kills (SIGKILL) and reaps those that still run: wait() for what they should finish.  In a
  // process forked since start() it only forgets them.
  ~Workers();

  // Waits for all, in any order, and returns one entry per worker, by rank.  Again: the same.
  // Errors: system_call.
  Expected<std::vector<WorkerExit>> wait();

  // SIGTERM to those that still run, SIGKILL to those that do at the deadline; then as wait().
  Expected<std::vector<WorkerExit>> stop(std::chrono::steady_clock::time_point deadline);

  // By rank; a PID means its worker until wait(), stop() or the destructor reaps it.
  std::vector<pid_t> pids() const;

 private:
  std::unique_ptr<State> state_;
};

namespace internal {

Expected<Workers> start_workers(const WorkersOptions& options,
                                const std::function<int(const Worker&)>& body);
// arena_not_frozen when a forked child would not have the object.
Expected<void> check_inheritable(const void* object);

template <class T>
Expected<void> check_argument(const T&) {
  return {};
}
template <class T>
Expected<void> check_argument(const Ref<T>& ref) {
  return ref.get().and_then([](const T* object) { return check_inheritable(object); });
}
template <class T>
Expected<void> check_argument(const Ref<std::span<const T>>& ref) {
  return ref.get().and_then([](const auto* array) { return check_inheritable(array->data()); });
}

template <class T>
T& as_argument(T& value) {
  return value;
}
template <class T>
const T& as_argument(Ref<T>& ref) {
  return *ref;
}
template <class T>
const T& as_argument(const Ref<T>& ref) {
  return *ref;
}

}  // namespace internal

// Forks options.count workers, each of which calls function(args...), or function(worker, args...)
// where it takes a `const Worker&` first, and exits with what it returns: an int, or 0 for void.
// Arguments reach the workers by the fork, uncopied; a Ref<T> arrives as const T&.  An exception
// ends the worker with exit code 1 and reaches the parent as text.
//
// Standard output and error are flushed before the fork and at a worker's end, which is by
// _exit(): no atexit handler, no destructor of the parent's objects runs there.  Other threads do
// not exist in a worker: what they hold locked stays locked.
//
// Errors: those of Ref::get(); arena_not_frozen when a reference's arena is not frozen yet: the
// workers would not have it; invalid_argument, also where SIGCHLD is ignored; system_call (then no
// worker is left running).
template <class Function, class... Args>
Expected<Workers> start(const WorkersOptions& options, Function&& function, Args&&... args) {
  Expected<void> checked;
  ((checked = checked ? internal::check_argument(args) : checked), ...);
  if (!checked) {
    return tl::make_unexpected(std::move(checked.error()));
  }
  return internal::start_workers(options, [&](const Worker& self) -> int {
    const auto call = [&]() -> decltype(auto) {
      if constexpr (std::is_invocable_v<Function, const Worker&,
                                        decltype(internal::as_argument(args))...>) {
        return std::invoke(function, self, internal::as_argument(args)...);
      } else {
        return std::invoke(function, internal::as_argument(args)...);
      }
    };
    if constexpr (std::is_void_v<decltype(call())>) {
      call();
      return 0;
    } else {
      return call();
    }
  });
}

}  // namespace cowshed
