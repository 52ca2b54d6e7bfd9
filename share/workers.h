#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/exception_text.h>
#include <cowshed/share/accounting/counter.h>
#include <cowshed/share/arena_transfer.h>
#include <cowshed/share/ref.h>
#include <cowshed/share/workers/arguments.h>
#include <cowshed/share/workers/function.h>
#include <cowshed/share/workers/job.h>
#include <cowshed/share/workers/options.h>

// Worker processes that share frozen arenas.
//
//   double search(const cowshed::Worker& self, const Index& index, std::string query);
//
//   int main(int argc, char** argv) {
//     cowshed::Runtime runtime(argc, argv);  // for spawn and forkserver
//     ...
//     auto workers = cowshed::start<search>({.method = Start::spawn, .count = 8}, ref, "apples");
//     const auto results = workers->wait();
//     for (const auto& result : *results) { ... result.value, or result.error ... }
namespace cowshed {

// Makes a program one that can be started again as a worker, by spawn or as a forkserver.  Write it
// as the first line of main():
//
//   int main(int argc, char** argv) {
//     cowshed::Runtime runtime(argc, argv);
//
// In a process that was started as a worker, the constructor runs the worker and ends the process
// by _exit().  In any other process it returns at once.  Workers also run what comes before it, and
// the constructors of static objects.
//
// A program with more rights than its caller (set-user-ID, set-group-ID, file capabilities) refuses
// to be a worker, because its caller would choose what it does.  Such a program can start workers
// by Start::fork only.  With forkserver, start() fails with an error that says so; with spawn, each
// worker does.
class Runtime {
 public:
  Runtime(int argc, char** argv);
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
};

namespace internal {

// Throws if a worker's value is a Ref that is not valid in this process.
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

}  // namespace internal

// The workers of one start().  Leaves no zombie and no descriptor.  Not thread-safe.  R is what the
// function returns; void for an int, which becomes the exit code as main()'s does.
template <class R = void>
class Workers {
 public:
  using Result = std::conditional_t<std::is_void_v<R>, WorkerExit, WorkerResult<R>>;

  explicit Workers(internal::WorkersHandle handle) : handle_(std::move(handle)) {}
  // Kills and reaps the workers that still run; call wait() to let them finish.  Leaves alone those
  // that it may not kill.  Does nothing in a process that was forked since start().
  ~Workers() = default;
  // After a move only the destructor and assignment are useful: calls fail with invalid_argument,
  // and processes() is empty.
  Workers(Workers&&) noexcept = default;
  Workers& operator=(Workers&&) noexcept = default;

  // Waits until all workers have ended.  Returns one result per worker, by rank.  Restarts failed
  // workers up to .restarts times.  A worker never waits for this call in order to end.  A second
  // call returns the same without values, which are handed out once.  If it throws std::bad_alloc,
  // call it again: only values with arenas or channels may be lost.  Errors: system_call;
  // threads_running (a restart by fork, see Threads).  The next call tries such a restart again.
  Expected<std::vector<Result>> wait() {
    return results_of([&] { return handle_->wait(); });
  }

  // As wait(), but returns after `timeout`.  Errors: as wait(); timed_out if a worker still runs.
  // The message lists those that do, and so does processes() by running().  No value is lost: call
  // wait(), wait_for() or stop() next.
  Expected<std::vector<Result>> wait_for(std::chrono::milliseconds timeout) {
    return results_of([&] { return handle_->wait_for(timeout); });
  }

  // Sends SIGTERM to all that run and, at the deadline, SIGKILL to those that still run.  Waits for
  // all, and returns as wait().  Restarts none.  Errors: as wait(); system_call if a worker has
  // become another user's and cannot be killed.
  Expected<std::vector<Result>> stop(std::chrono::steady_clock::time_point deadline) {
    return results_of([&] { return handle_->stop(deadline); });
  }

  // One handle per worker, by rank: its PID, its pidfd, signals, and a wait for it alone.
  std::vector<WorkerProcess> processes() const {
    return handle_ == nullptr ? std::vector<WorkerProcess>() : handle_->processes();
  }

  // For libraries that build on workers.
  internal::WorkersHandle release() && { return std::move(handle_); }

 private:
  template <class Call>
  Expected<std::vector<Result>> results_of(Call call) {
    if (handle_ == nullptr) return internal::moved_from_workers_error();
    Expected<std::vector<internal::WorkerEnd>> ends = call();
    if (!ends) return tl::make_unexpected(std::move(ends.error()));
    std::vector<Result> results;
    for (internal::WorkerEnd& end : *ends) results.push_back(result_of(std::move(end)));
    handle_->drop_values();
    return results;
  }
  Result result_of(internal::WorkerEnd end) const {
    if constexpr (std::is_void_v<R>) {
      return std::move(end.exit);
    } else {
      Result result = {std::move(end.exit), std::nullopt};
      if (end.value && result.ok()) {
        try {
          result.value.emplace(end.value->take<R>());
          internal::TransferCounter("result", handle_->name())
              .add(type_name<R>(), TransferKind::value, 1, end.value_bytes);
          internal::check_value(*result.value);
        } catch (const std::bad_alloc&) {
          throw;
        } catch (...) {
          result.value.reset();
          result.error = internal::text_of_current_exception();
        }
      }
      return result;
    }
  }

  internal::WorkersHandle handle_;
};

namespace internal {

template <class T>
decltype(auto) as_object(T& value) {
  if constexpr (IsRef<std::remove_const_t<T>>::value) return *value;
  else return (value);
}

// A function that is known at compile time.  Its parameters say which Refs it takes as Refs; the
// others arrive as the objects that they refer to.
template <auto function>
struct NamedFunction {
  using Parts = typename Registered<function>::Parts;

  template <class Parameter, class Argument>
  static decltype(auto) pass(Argument& argument) {
    if constexpr (IsRef<std::remove_cvref_t<Parameter>>::value) return (argument);
    else return as_object(argument);
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

// Calls a NamedFunction, or any other callable.  The latter gets all Refs as objects if it takes
// them so, else as Refs; and `self` first if it takes that.
template <class Function, class... Args>
decltype(auto) call_worker(const Worker& self, Function& function, Args&... args) {
  if constexpr (requires { typename Function::Parts; }) {
    return function(self, args...);
  } else if constexpr (std::is_invocable_v<Function&, const Worker&,
                                           decltype(as_object(std::declval<Args&>()))...>) {
    return std::invoke(function, self, as_object(args)...);
  } else if constexpr (std::is_invocable_v<Function&,
                                           decltype(as_object(std::declval<Args&>()))...>) {
    return std::invoke(function, as_object(args)...);
  } else if constexpr (std::is_invocable_v<Function&, const Worker&, Args&...>) {
    return std::invoke(function, self, args...);
  } else {
    return std::invoke(function, args...);
  }
}

// Whether call_worker() has a way to call it.
template <class Function, class... Args>
inline constexpr bool kCallable =
    requires { typename Function::Parts; } ||
    std::is_invocable_v<Function&, const Worker&, decltype(as_object(std::declval<Args&>()))...> ||
    std::is_invocable_v<Function&, decltype(as_object(std::declval<Args&>()))...> ||
    std::is_invocable_v<Function&, const Worker&, Args&...> ||
    std::is_invocable_v<Function&, Args&...>;

template <class Function, class... Args>
using CallResult = std::remove_cvref_t<decltype(call_worker(
    std::declval<const Worker&>(), std::declval<Function&>(), std::declval<Args&>()...))>;

// Refers to the function and its arguments: for workers that are all started before start()
// returns.
template <class Function, class... Args>
WorkerTask::Body body_of_references(Function& function, Args&... args) {
  using R = CallResult<Function, Args...>;
  return [&](const Worker& self, Encoder& value) {
    return keep_value<R>(value, [&]() -> R { return call_worker(self, function, args...); });
  };
}

// Copies them: for workers that may be restarted later.
template <class Function, class... Args>
WorkerTask::Body body_of_copies(Function& function, Args&... args) {
  using R = CallResult<Function, Args...>;
  using Copies = std::tuple<std::decay_t<Args>...>;
  return [function = std::decay_t<Function>(function), copies = std::make_shared<Copies>(args...)](
             const Worker& self, Encoder& value) mutable {
    const auto call = [&](auto&... each) -> R { return call_worker(self, function, each...); };
    return keep_value<R>(value, [&]() -> R { return std::apply(call, *copies); });
  };
}

template <class... Ts>
inline constexpr bool kCopyable = (std::is_copy_constructible_v<std::decay_t<Ts>> && ...);

// Both forms of start() end here.  `task` has what spawn and forkserver need, if anything.
template <class Function, class... Args>
auto start_checked(const WorkersOptions& options, WorkerTask task, Function& function,
                   Args&... args) -> Expected<Workers<ValueOf<CallResult<Function, Args...>>>> {
  using R = CallResult<Function, Args...>;
  if (auto checked = check_arguments(args...); !checked)
    return tl::make_unexpected(std::move(checked.error()));
  if (options.restarts == 0) task.body = body_of_references(function, args...);
  else if constexpr (kCopyable<Function, Args...>) task.body = body_of_copies(function, args...);
  else if (options.method == Start::fork) return no_copies_error(options.name);
  task.returns_value = kHasValue<R>;
  auto workers = start_workers(options, std::move(task));
  if (!workers) return tl::make_unexpected(std::move(workers.error()));
  if (options.method == Start::fork) {
    const ArgumentCounter counter(options.name, options.count);
    (count_inherited(counter, args), ...);
  }
  return Workers<ValueOf<R>>(*std::move(workers));
}

}  // namespace internal

// Starts options.count workers.  Each calls function(args...), or function(worker, args...) if the
// function takes a `const Worker&` first, and ends.
//
// Arguments: a Ref<T> arrives as const T&, or as a Ref<T> if the function takes one.  By fork the
// worker inherits the other arguments without a copy; else they are sent by value, see codec.h.
// Every Ref must be to a spawn_safe type, with any method, so that you can change the method.  The
// compiler sees that of an argument and of types such as vector<Ref<T>> and Channel<Ref<T>>.  A Ref
// inside a class fails with not_spawn_safe in the worker that uses it.
//
// Value: what the function returns; an int is the exit code.  An arena that the worker has built
// and frozen comes with the value, as in std::pair<Arena, Ref<T>>.  The parent uses it in place,
// also after the worker has ended, see arena_transfer.h.  An exception ends the worker with exit
// code 1, and its text arrives as the result's error.  A worker that cannot send either, because it
// has closed its socket, say, ends with exit code 74 (EX_IOERR).
//
// The function is a constant: a named function, or a lambda without captures.
//
// A worker ends by _exit(), so it runs no atexit handler and no destructor of a static object.
// Standard output and error are flushed before a fork and when a worker ends.  A spawned worker has
// the standard streams, the descriptors that its arguments bring, and no others.
//
// Thread-safe.  Do not reap the workers by waitpid(-1).  On an error no worker is left running.
// Errors: those of Ref::get(); arena_not_frozen (a worker would not have the object of a Ref);
// invalid_argument (also if SIGCHLD is ignored); threads_running (fork); no_runtime (spawn,
// forkserver); forkserver_ended; timed_out (forkserver, see start_timeout); in_use (inside an
// ArenaScope); system_call.
template <auto function, class... Args>
auto start(const WorkersOptions& options, Args&&... args) {
  using Registered = internal::Registered<function>;
  using Parts = typename Registered::Parts;
  internal::check_all_sendable<Parts, std::remove_cvref_t<Args>...>();
  internal::WorkerTask task;
  task.function = &Registered::entry();
  task.arguments = [&](Encoder& to) {
    internal::encode_arguments<Parts>({options.name, options.count}, to, args...);
  };
  const internal::NamedFunction<function> callable;
  return internal::start_checked(options, std::move(task), callable, args...);
}

// The same by fork alone, for any function: a lambda with captures, a Ref to a type that is not
// spawn_safe, arguments that cannot be sent.  Errors: invalid_argument for another method.
template <class Function, class... Args>
auto start(const WorkersOptions& options, Function&& function, Args&&... args) {
  constexpr bool kFits =
      internal::kCallable<std::remove_reference_t<Function>, std::remove_reference_t<Args>...>;
  static_assert(kFits,
                "start() cannot call the function with these arguments: a Ref<T> arrives as a "
                "const T&, others as they are; a const Worker&, if it takes one, comes first");
  if constexpr (kFits) return internal::start_checked(options, {}, function, args...);
  else return Expected<Workers<void>>(internal::no_copies_error(options.name));
}

}  // namespace cowshed
