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
// Its containers are other ones than those of a library that was built without: such a program must
// not link.  Build Cowshed with -D_GLIBCXX_DEBUG, too, or use -D_GLIBCXX_ASSERTIONS instead.
extern "C" const char cowshed_must_be_built_with_GLIBCXX_DEBUG_too;
[[gnu::used]] static const char* const cowshed_debug_mode =
    &cowshed_must_be_built_with_GLIBCXX_DEBUG_too;
#endif

// How every Cowshed library reports failure.  Nothing here prints or aborts; running out of
// ordinary memory is std::bad_alloc, as in the standard library.
namespace cowshed {

// What went wrong, for a program to branch on.  A caller that only reports needs `message`.
enum class ErrorCode : std::uint8_t {
  invalid_argument,    // the call itself is wrong: a zero capacity, an empty name
  system_call,         // the OS refused; `system_errno` says why
  address_taken,       // something else is mapped where the arena must go
  capacity_exceeded,   // the arena is full
  out_of_memory,       // the memory cgroup, or the kernel, has no more memory for the arena
  arena_frozen,        // allocation from, or a second freeze in another mode of, a frozen arena
  arena_not_frozen,    // the call needs a frozen arena
  in_use,              // a thread, or this one, is inside an ArenaScope of the arena; of a file:
                       // another program is writing to it
  not_inherited,       // the arena was not frozen when this process was forked: not mapped here
  not_in_arena,        // the object does not lie in any arena of this process
  published_too_late,  // the object was published after this process was forked
  wrong_type,          // a reference used as another type than the one published
  wrong_process_tree,  // a reference of an unrelated process
  released,            // the object's publication was withdrawn, or its arena destroyed
  null_reference,      // a default-constructed reference
  not_published,       // no object of this name
  not_spawn_safe,      // the object may hold pointers to another program's code, see spawn_safe.h
  bad_image,           // not an image of an arena, or a damaged one
  bad_encoding,        // bytes that are no such object's: damaged, too few, too many
  bad_recording,       // not a recording of cowtop's, of another version, or damaged
  bad_message,         // what a worker or its starter sent is damaged, or of another version
  threads_running,     // fork() in a process with threads, see WorkersOptions::threads
  no_runtime,          // main() has no cowshed::Runtime, which spawn and forkserver need
  not_registered,      // a program has no worker function of this name
  forkserver_ended,    // the forkserver was killed or has failed; the message says how
  worker_failed,       // a worker of map() ended, or its function threw; the message says which
  foreign_descriptor,  // a descriptor of something else than it was said to be, or without seals
  bad_channel,         // not a channel, of another version, or damaged
  closed,              // the channel is closed; for a receiver: and empty
  would_block,         // a try form: the channel is full, or empty
  timed_out,           // a timed form: still so at the deadline
  peer_stopped,        // a stopped process is in the midst of a call and holds what is needed
  interrupted,         // the caller's stop_token was asked to stop
  message_too_large,   // more than the channel's memory could ever hold
  no_such_process,     // the PID does not exist (any more)
  permission_denied,   // the process belongs to somebody else, or a capability is missing
  unsupported,         // this kernel or machine cannot do it; the message says what is missing
};

// The code's name as spelled above.  Thread-safe, never fails.
std::string_view to_string(ErrorCode code);

// A value: copyable, owns its text, may cross threads.
struct Error {
  ErrorCode code;
  int system_errno = 0;  // errno of the failing call, 0 where none failed
  std::string message;   // one line: the thing, what is wrong, what to do
};

}  // namespace cowshed

// What value() throws where there is an error instead: what() is its message.
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

// A value, or the Error for which there is none: tl::expected, but not to be ignored, and a loop
// may go over the value of a temporary:
//
//   for (const auto& end : workers.wait().value()) { ... }
//
// value() of a temporary is the value itself, which the loop keeps, and not a reference into it.
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

  template <class Function>
  auto and_then(Function&& next) const -> std::invoke_result_t<Function> {
    if (!*this) return tl::make_unexpected(error());
    return std::invoke(std::forward<Function>(next));
  }
};

// Builds the error of a failed system call: "`what`: strerror(`error`)".  Pass errno at once,
// before anything else can change it.
tl::unexpected<Error> system_error(std::string_view what, int error);

tl::unexpected<Error> make_error(ErrorCode code, std::string message, int system_errno = 0);

}  // namespace cowshed
