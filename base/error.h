#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <type_traits>
#include <utility>

#ifdef _GLIBCXX_DEBUG
// This macro changes the standard containers, so a program with it must not link with a library
// without.  Build Cowshed with -D_GLIBCXX_DEBUG, too, or use -D_GLIBCXX_ASSERTIONS instead.
extern "C" const char cowshed_must_be_built_with_GLIBCXX_DEBUG_too;
[[gnu::used]] static const char* const cowshed_debug_mode =
    &cowshed_must_be_built_with_GLIBCXX_DEBUG_too;
#endif

// How all Cowshed libraries report failure.  They never print or abort.  If ordinary memory runs
// out, they throw std::bad_alloc, as the standard library does.  One exception: at a thread's first
// call, glibc ends the process if it has no memory to register the end of the thread.
namespace cowshed {

// What went wrong, for programs that react to it.  To report an error, its message is enough.
enum class ErrorCode : std::uint8_t {
  invalid_argument,    // the call itself is wrong: a zero capacity, an empty name
  system_call,         // the kernel refused; `system_errno` says why
  address_taken,       // the arena's addresses have another mapping
  capacity_exceeded,   // the arena is full
  out_of_memory,       // the memory cgroup, or the kernel, has no more memory for the arena
  arena_frozen,        // the arena is frozen, or was frozen in the other mode
  arena_not_frozen,    // the call needs a frozen arena
  in_use,              // a thread is inside an ArenaScope; or another program writes to the file
  not_inherited,       // this process was forked before the arena was frozen, and does not have it
  not_in_arena,        // the object lies in no arena of this process
  published_too_late,  // the object was published after this process was forked
  wrong_type,          // the object was published as another type
  wrong_process_tree,  // the reference is of an unrelated process
  released,            // the object's publication was withdrawn, or its arena destroyed
  null_reference,      // the reference is default-constructed
  not_published,       // no object has this name
  not_spawn_safe,      // the object may hold pointers to another program's code, see spawn_safe.h
  bad_image,           // not an image of an arena, or damaged
  bad_encoding,        // the bytes encode no such object: damaged, too few, too many
  bad_recording,       // not a recording of cowtop, of another version, or damaged
  bad_message,         // a message of a worker or its starter is damaged, or of another version
  threads_running,     // fork() in a process with threads, see WorkersOptions::threads
  no_runtime,          // main() has no cowshed::Runtime, which spawn and forkserver need
  not_registered,      // this program has no worker function of this name
  forkserver_ended,    // the forkserver was killed or has failed; the message says how
  worker_failed,       // a worker of map() ended, or its function threw; the message says which
  foreign_descriptor,  // a descriptor is not what it should be, or has no seals
  bad_channel,         // not a channel, of another version, or damaged
  closed,              // the channel is closed, and for a receiver also empty
  would_block,         // the call would have to wait: the channel is full, or empty
  timed_out,           // the time is over: the channel is still full or empty, or workers still run
  peer_stopped,        // a process was stopped (SIGSTOP) inside a call, and blocks this one
  interrupted,         // the caller's stop_token was asked to stop
  message_too_large,   // more than the channel's memory can ever hold
  no_such_process,     // no process has this PID, or no longer
  permission_denied,   // the process belongs to another user, or a capability is missing
  unsupported,         // this kernel or machine cannot do it; the message says what is missing
};

// Returns the code's name as spelled above.  Thread-safe, never fails.
std::string_view to_string(ErrorCode code);

// Copyable; owns its text; may be passed to other threads.
struct Error {
  ErrorCode code;
  int system_errno = 0;  // of the system call that failed; 0 if none did
  std::string message;   // one line: which object, what is wrong, what to do
};

}  // namespace cowshed

// Thrown by value() if there is an error.  what() is the error's message.
template <>
class tl::bad_expected_access<cowshed::Error> : public std::exception {
 public:
  explicit bad_expected_access(cowshed::Error error) : error_(std::move(error)) {}
  const char* what() const noexcept override { return error_.message.c_str(); }
  const cowshed::Error& error() const noexcept { return error_; }

 private:
  cowshed::Error error_;
};

namespace cowshed {

// A value, or the Error that says why there is none.  It is a tl::expected with two differences.
// The compiler warns if it is ignored.  And value() and * of a temporary return the value itself,
// not a reference into the temporary, so this loop is safe:
//
//   for (const auto& end : workers.wait().value()) { ... }
template <class T>
class [[nodiscard]] Expected : public tl::expected<T, Error> {
  using Base = tl::expected<T, Error>;

 public:
  using Base::Base;
  Expected(Base base) : Base(std::move(base)) {}

  T& value() & { return Base::value(); }
  const T& value() const& { return Base::value(); }
  T value() && { return static_cast<Base&&>(*this).value(); }
  T& operator*() & { return Base::operator*(); }
  const T& operator*() const& { return Base::operator*(); }
  T operator*() && { return *static_cast<Base&&>(*this); }

  template <class Function>
  auto and_then(Function&& next) const& -> std::invoke_result_t<Function, const T&> {
    if (!*this) return tl::make_unexpected(this->error());
    return std::invoke(std::forward<Function>(next), **this);
  }
  template <class Function>
  auto and_then(Function&& next) && -> std::invoke_result_t<Function, T&&> {
    if (!*this) return tl::make_unexpected(std::move(*this).error());
    return std::invoke(std::forward<Function>(next), *static_cast<Base&&>(*this));
  }
};

template <>
class [[nodiscard]] Expected<void> : public tl::expected<void, Error> {
  using Base = tl::expected<void, Error>;

 public:
  using Base::Base;
  Expected(Base base) : Base(std::move(base)) {}

  void value() const {  // throws if there is an error
    if (!*this) throw tl::bad_expected_access<Error>(error());
  }

  template <class Function>
  auto and_then(Function&& next) const -> std::invoke_result_t<Function> {
    if (!*this) return tl::make_unexpected(error());
    return std::invoke(std::forward<Function>(next));
  }
};

// Makes the error of a failed system call, with the message "`what`: strerror(`error`)".  Pass
// errno before another call can change it.
tl::unexpected<Error> system_error(std::string_view what, int error);

tl::unexpected<Error> make_error(ErrorCode code, std::string message, int system_errno = 0);

}  // namespace cowshed
