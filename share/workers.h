#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <sys/types.h>
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

// Worker processes over frozen arenas, by one of three methods.
//
//   double search(const cowshed::Worker& self, const Index& index, std::string query);
//
//   int main(int argc, char** argv) {
//     cowshed::Runtime runtime(argc, argv);     // for spawn and forkserver
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
// by Start::fork only; spawn and forkserver fail with an error that says so.
class Runtime {
 public:
  Runtime(int argc, char** argv);
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
};

namespace internal {

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
  Expected<std::vector<Result>> wait() {
    if (handle_ == nullptr) return internal::moved_from_error();
    return handle_->wait(!std::is_void_v<R>).map(results());
  }

  // SIGTERM to those that still run, SIGKILL to those that do at the deadline; then as wait().
  // Starts none again.  Errors: as wait(); system_call names a worker that cannot be killed because
  // it has become another user's.
  Expected<std::vector<Result>> stop(std::chrono::steady_clock::time_point deadline) {
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
