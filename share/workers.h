#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <cowshed/base/expected_range.h>
#include <cowshed/share/accounting/counter.h>
#include <cowshed/share/arena_transfer.h>
#include <cowshed/share/ref.h>
#include <cowshed/share/workers/exception.h>
#include <cowshed/share/workers/function.h>

// Worker processes over frozen arenas, by one of three methods.
//
//   double search(const cowshed::Worker& self, const Index& index, std::string query);
//
//   int main(int argc, char** argv) {
//     cowshed::Runtime runtime(argc, argv);     // runtime.h; for spawn and forkserver
//     ...
//     auto workers = cowshed::start<search>({.method = Start::spawn, .count = 8}, ref, "apples");
//     const auto results = workers->wait();
//     for (const auto& result : *results) { ... result.value, or result.error ... }
namespace cowshed {

class ForkServer;  // forkserver.h

enum class Start : std::uint8_t {
  fork,        // what this process has is inherited, for free; not for one with threads
  spawn,       // exec of this program or another: also for processes with threads
  forkserver,  // a small process without threads, see forkserver.h, forks it
};

// What fork does in a process with other threads.  They do not exist in a worker, and what they
// hold locked stays locked there for ever: a logger's mutex, or one inside a library.  (Cowshed's
// own and malloc's are never held: fork waits for them.)
enum class Threads : std::uint8_t {
  // The error threads_running, which counts and names them.  A worker that hangs does so once in a
  // thousand starts, far from its cause; this fails at the first.
  refuse,
  allow,  // the caller knows that no thread holds what a worker needs
};

struct WorkersOptions {
  Start method = Start::fork;
  int count = 1;
  std::string name = "worker";
  // SIGKILL for a worker whose parent ended (under forkserver: whose forkserver did, which ends
  // with its owner).  For fork and spawn the kernel means the parent's *thread* that called
  // start(): with this set, call it from one that lives as long as the workers may.
  bool die_with_parent = true;
  Threads threads = Threads::refuse;
  // How often one that fails is started again: by wait(), which alone notices it, or by map().  By
  // fork the arguments and the function are copied for that.
  int restarts = 0;
  std::vector<std::string> environment = {};  // "NAME=value", beside what there is
  // For spawn: another program that has a Runtime and the same worker function.
  std::filesystem::path program = {};
  // For spawn: one that has not come to its function by then is killed; its program has no Runtime,
  // most likely.  24 days at most.
  std::chrono::milliseconds start_timeout = std::chrono::seconds(30);
  const ForkServer* server = nullptr;  // for forkserver; null: one that is started when needed
};

// What became of one.
struct WorkerExit {
  int rank = 0;
  pid_t pid = 0;
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;      // 0 when it exited
  std::string error;   // "" when all went well; else one line: an exception's what(), a stray
                       // write, a signal, an exit code that is not 0
  std::uint64_t start_ns = 0;  // how long fork() or posix_spawn() took
  int restarts = 0;            // before it

  bool ok() const { return error.empty(); }
};

template <class R>
struct WorkerResult : WorkerExit {
  std::optional<R> value;  // that the function returned; none unless ok()
};

namespace internal {

struct WorkerEnd {
  WorkerExit exit;
  std::shared_ptr<Decoder> value;  // given out once; null: none
  std::uint64_t value_bytes = 0;
};

// Throws where a worker's value is a reference that means nothing here.
template <class R>
void check_value(const R&) {}
template <class T>
void check_value(const Ref<T>& ref) {
  if (auto object = ref.get(); !object && object.error().code != ErrorCode::null_reference) {
    const bool of_worker = object.error().code == ErrorCode::published_too_late;
    throw std::runtime_error("the reference that it returned: " + object.error().message +
                             (of_worker ? "; a worker returns its own arena with the reference, as "
                                          "std::pair<Arena, Ref<T>>"
                                        : ""));
  }
}

// The workers of one start().
class StartedWorkers {
 public:
  StartedWorkers() = default;
  StartedWorkers(const StartedWorkers&) = delete;
  StartedWorkers& operator=(const StartedWorkers&) = delete;
  virtual ~StartedWorkers() = default;

  virtual Expected<std::vector<WorkerEnd>> wait(bool with_values) = 0;
  virtual Expected<std::vector<WorkerEnd>> stop(std::chrono::steady_clock::time_point deadline,
                                                bool with_values) = 0;
  // For who starts them again by itself.  Reaps those that have ended, and does not wait.
  virtual Expected<std::vector<WorkerEnd>> reap_ended() = 0;
  virtual Expected<void> restart(int rank) = 0;  // of one that has been reaped

  virtual const std::string& name() const = 0;
  virtual std::vector<pid_t> pids() const = 0;
  virtual std::vector<int> pidfds() const = 0;  // by rank; -1: it has been reaped
};
using WorkersHandle = std::unique_ptr<StartedWorkers>;

tl::unexpected<Error> moved_from_error();

}  // namespace internal

// Owns the workers: none is left as a zombie and no descriptor leaks.  Not thread-safe.  R is what
// the function returns; void for an int, which is the exit code, as main()'s is.
template <class R = void>
class Workers {
 public:
  using Result = std::conditional_t<std::is_void_v<R>, WorkerExit, WorkerResult<R>>;

  explicit Workers(internal::WorkersHandle handle) : handle_(std::move(handle)) {}
  // Kills (SIGKILL) and reaps those that still run: wait() for what they should finish.  In a
  // process forked since start() it only forgets them; and those that it may not kill.
  ~Workers() = default;
  // One that was moved from can be destroyed and assigned to; its calls answer invalid_argument, or
  // with nothing.
  Workers(Workers&&) noexcept = default;
  Workers& operator=(Workers&&) noexcept = default;

  // Waits for all, in any order, and returns one entry per worker, by rank.  A worker's end never
  // waits for this.  Again: the same, without values, which are given out once.  Errors:
  // system_call; threads_running (a worker must be restarted by fork, see Threads).
  ExpectedRange<std::vector<Result>> wait() {
    if (handle_ == nullptr) return internal::moved_from_error();
    return handle_->wait(!std::is_void_v<R>).map(results());
  }

  // SIGTERM to those that still run, SIGKILL to those that do at the deadline; then as wait().
  // Starts none again.  Errors: as wait(); system_call names a worker that cannot be killed because
  // it has become another user's.
  ExpectedRange<std::vector<Result>> stop(std::chrono::steady_clock::time_point deadline) {
    if (handle_ == nullptr) return internal::moved_from_error();
    return handle_->stop(deadline, !std::is_void_v<R>).map(results());
  }

  // By rank; a PID means its worker until wait(), stop() or the destructor reaps it.
  std::vector<pid_t> pids() const {
    return handle_ == nullptr ? std::vector<pid_t>() : handle_->pids();
  }

  // For what builds on workers.
  internal::WorkersHandle release() && { return std::move(handle_); }

 private:
  auto results() const {
    return [name = handle_->name()](std::vector<internal::WorkerEnd> ends) {
      return results_of(name, std::move(ends));
    };
  }
  static std::vector<Result> results_of(const std::string& name,
                                        std::vector<internal::WorkerEnd> ends) {
    std::vector<Result> results;
    for (internal::WorkerEnd& end : ends) {
      if constexpr (std::is_void_v<R>) {
        results.push_back(std::move(end.exit));
      } else {
        Result& result = results.emplace_back(Result{std::move(end.exit), std::nullopt});
        if (end.value != nullptr && result.ok()) {
          try {
            result.value.emplace(end.value->take<R>());
            internal::TransferCounter("result", name)
                .add(type_name<R>(), TransferKind::value, 1, end.value_bytes);
            internal::check_value(*result.value);
          } catch (...) {
            result.error = internal::text_of_current_exception();
          }
        }
      }
    }
    return results;
  }

  internal::WorkersHandle handle_;
};

namespace internal {

using WorkerBody = std::function<int(const Worker&, Encoder& value)>;

// For spawn and forkserver; fork needs none of it.
struct WorkerJob {
  const WorkerFunction* function = nullptr;
  std::function<void(Encoder&)> arguments;
};
Expected<WorkersHandle> start_workers(const WorkersOptions& options, WorkerBody body,
                                      const WorkerJob& job);
// arena_not_frozen when another process would not have the object.
Expected<void> check_inheritable(const void* object);
tl::unexpected<Error> no_copies_error(const std::string& name);

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

template <class... Args>
Expected<void> check_arguments(const Args&... args) {
  Expected<void> checked;
  ((checked = checked ? check_argument(args) : checked), ...);
  return checked;
}

// Counts the arguments of one start() of workers: see transfer_report.h.
class ArgumentCounter {
 public:
  ArgumentCounter(std::string_view name, int workers)
      : counter_("launch", name), workers_(static_cast<std::uint64_t>(workers)) {}
  template <class T>
  void add(TransferKind kind, std::uint64_t bytes) const {
    counter_.row(type_name<T>(), kind).add(workers_, bytes * workers_, workers_);
  }

 private:
  TransferCounter counter_;
  std::uint64_t workers_;
};

// Of the object that a Ref refers to.
template <class T>
std::uint64_t bytes_of(const T&) {
  return sizeof(T);
}
template <class T>
std::uint64_t bytes_of(const std::span<const T>& array) {
  return array.size_bytes();
}

template <class Parameter, class Argument>
void encode_argument(const ArgumentCounter& counter, Encoder& to, const Argument& argument) {
  using To = Arrived<Parameter>;
  to.put(To::template kPassing<Argument>);  // not the user's, so not counted
  const std::uint64_t before = to.written();
  To::encode_itself(to, argument);
  if constexpr (To::template kPassing<Argument> == Passing::reference)
    counter.add<typename To::T>(TransferKind::reference, bytes_of(*argument));
  else counter.add<typename To::T>(TransferKind::value, to.written() - before);
}

template <class Parts, class... Args>
void encode_arguments(const ArgumentCounter& counter, Encoder& to, const Args&... args) {
  [&]<std::size_t... i>(std::index_sequence<i...>) {
    (encode_argument<typename Parts::template Parameter<i>>(counter, to, args), ...);
  }(std::index_sequence_for<Args...>());
}

template <class T>
void count_inherited(const ArgumentCounter& counter, const T&) {
  counter.add<T>(TransferKind::inherited, sizeof(T));
}
template <class T>
void count_inherited(const ArgumentCounter& counter, const Ref<T>& ref) {
  counter.add<T>(TransferKind::reference, bytes_of(*ref));
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

// A function with a name: its parameters say which references it takes as they are.
template <auto function>
struct Named {
  using Parts = typename Registered<function>::Parts;

  template <class Parameter, class Argument>
  static decltype(auto) pass(Argument& argument) {
    if constexpr (IsRef<std::remove_cvref_t<Parameter>>::value) return (argument);
    else return as_argument(argument);
  }
  template <class... Args>
  typename Parts::Value operator()(const Worker& self, Args&... args) const {
    return [&]<std::size_t... i>(std::index_sequence<i...>) -> typename Parts::Value {
      if constexpr (Parts::kTakesWorker)
        return function(self, pass<typename Parts::template Parameter<i>>(args)...);
      else return function(pass<typename Parts::template Parameter<i>>(args)...);
    }(std::index_sequence_for<Args...>());
  }
};

// Any other takes all as objects, or all as they are.
template <class Function, class... Args>
decltype(auto) call_worker(const Worker& self, Function& function, Args&... args) {
  if constexpr (requires { typename Function::Parts; }) {
    return function(self, args...);
  } else if constexpr (std::is_invocable_v<Function&, const Worker&,
                                           decltype(as_argument(std::declval<Args&>()))...>) {
    return std::invoke(function, self, as_argument(args)...);
  } else if constexpr (std::is_invocable_v<Function&,
                                           decltype(as_argument(std::declval<Args&>()))...>) {
    return std::invoke(function, as_argument(args)...);
  } else if constexpr (std::is_invocable_v<Function&, const Worker&, Args&...>) {
    return std::invoke(function, self, args...);
  } else {
    return std::invoke(function, args...);
  }
}

template <class Function, class... Args>
using CallResult = std::remove_cvref_t<decltype(call_worker(
    std::declval<const Worker&>(), std::declval<Function&>(), std::declval<Args&>()...))>;

template <class Function, class... Args>
Expected<Workers<ValueOf<CallResult<Function, Args...>>>> start_checked(
    const WorkersOptions& options, const WorkerJob& job, Function& function, Args&... args) {
  using R = CallResult<Function, Args...>;
  auto checked = check_arguments(args...);
  if (!checked) return tl::make_unexpected(std::move(checked.error()));
  WorkerBody body;
  if (options.restarts == 0) {  // called before this returns
    body = [&](const Worker& self, Encoder& value) {
      return keep_value<R>(value, [&]() -> R { return call_worker(self, function, args...); });
    };
  } else if constexpr ((std::is_copy_constructible_v<std::decay_t<Args>> && ...) &&
                       std::is_copy_constructible_v<std::decay_t<Function>>) {
    body = [function = std::decay_t<Function>(function),
            kept = std::make_shared<std::tuple<std::decay_t<Args>...>>(args...)](
               const Worker& self, Encoder& value) mutable {
      return keep_value<R>(value, [&]() -> R {
        return std::apply([&](auto&... each) -> R { return call_worker(self, function, each...); },
                          *kept);
      });
    };
  } else if (options.method == Start::fork) {
    return no_copies_error(options.name);
  }
  return start_workers(options, std::move(body), job).map([&](WorkersHandle&& handle) {
    if (options.method == Start::fork) {
      const ArgumentCounter counter(options.name, options.count);
      (count_inherited(counter, args), ...);
    }
    return Workers<ValueOf<R>>(std::move(handle));
  });
}

template <class Parts, class... Args>
constexpr void check_sendable() {
  static_assert(Parts::kParameters == sizeof...(Args),
                "as many arguments as the worker's function has parameters, but for its `const "
                "Worker&`");
  const auto check = []<std::size_t i, class Argument>(std::tuple<Argument>*,
                                                       std::index_sequence<i>) {
    using Parameter = typename Parts::template Parameter<i>;
    if constexpr (IsRef<Argument>::value && !IsRef<std::remove_cvref_t<Parameter>>::value) {
      using T = typename IsRef<Argument>::Object;
      static_assert(IsRef<Argument>::kSpawnSafe,
                    "this reference's type may hold pointers to code, which means nothing in a "
                    "spawned worker: see spawn_safe.h; or start(options, function, ...), which is "
                    "for fork alone");
      static_assert(
          std::is_same_v<T, std::remove_cvref_t<Parameter>> && Arrived<Parameter>::kByReference,
          "the parameter for a Ref<T> is a const T&");
    } else {
      static_assert(!std::is_same_v<std::remove_cvref_t<Parameter>, Arena>,
                    "a worker has every arena that is frozen at its start: pass a Ref to what is "
                    "published in it");
      static_assert(Codable<std::remove_cvref_t<Parameter>>,
                    "this argument cannot be sent: make it trivially copyable, a string or a "
                    "container, specialise cowshed::Codec<T>, or pass a Ref to it");
      static_assert(RefsSpawnSafe<std::remove_cvref_t<Parameter>>::value,
                    "a reference in this argument has a type that may hold pointers to code, which "
                    "means nothing in a spawned worker: see spawn_safe.h; or start(options, "
                    "function, ...), which is for fork alone");
      static_assert(std::is_convertible_v<const Argument&, std::remove_cvref_t<Parameter>>);
    }
  };
  [&]<std::size_t... i>(std::index_sequence<i...>) {
    (check(static_cast<std::tuple<Args>*>(nullptr), std::index_sequence<i>()), ...);
  }(std::index_sequence_for<Args...>());
}

}  // namespace internal

// Starts options.count workers, each of which calls function(args...), or function(worker, args...)
// where it takes a `const Worker&` first, and ends.  What it returns is the worker's value; an int
// is its exit code, and an arena that it built and froze comes with the value, as in
// std::pair<Arena, Ref<T>>: used in place by the parent, without a copy, also after the worker's
// end, see arena_transfer.h.  A Ref<T> arrives as const T&, or as itself where the function takes
// one.  An exception ends the worker with exit code 1 and reaches the parent as text.
//
// The function is a constant: one with a name, or a lambda without captures.  By fork the arguments
// reach the workers uncopied; otherwise by value, see codec.h, or by Ref.  So that the method is
// free to change, a Ref must be to a spawn_safe type under each: as an argument, and where an
// argument's type names it, as vector<Ref<T>> and Channel<Ref<T>> do.  One inside a class is not
// seen by the compiler, and fails with not_spawn_safe in the worker that uses it.
//
// Standard output and error are flushed before a fork and at a worker's end, which is by _exit():
// no atexit handler and no destructor of static objects runs there.  A spawned worker has no other
// descriptors than its standard streams and what its arguments bring.
//
// Thread-safe.  Do not reap its children by waitpid(-1).  Errors: those of Ref::get();
// arena_not_frozen when a reference's arena is not frozen yet: the workers would not have it;
// invalid_argument, also where SIGCHLD is ignored; threads_running (fork); no_runtime (spawn,
// forkserver); forkserver_ended; system_call.  Then no worker is
// left running.
template <auto function, class... Args>
auto start(const WorkersOptions& options, Args&&... args) {
  using Registered = internal::Registered<function>;
  const internal::Named<function> callable;
  internal::check_sendable<typename Registered::Parts, std::remove_cvref_t<Args>...>();
  const internal::WorkerJob job{&Registered::entry(), [&](Encoder& to) {
                                  internal::encode_arguments<typename Registered::Parts>(
                                      {options.name, options.count}, to, args...);
                                }};
  return internal::start_checked(options, job, callable, args...);
}

// The same by fork alone, for any function: a lambda with captures, references to types that are
// not spawn_safe, arguments that cannot be sent.  Errors: invalid_argument where the method is
// another.
template <class Function, class... Args>
auto start(const WorkersOptions& options, Function&& function, Args&&... args) {
  return internal::start_checked(options, {}, function, args...);
}

}  // namespace cowshed
