#include <cstring>
#include <utility>

#include <cowshed/base/error.h>

#ifdef _GLIBCXX_DEBUG
const char cowshed_must_be_built_with_GLIBCXX_DEBUG_too = 1;
#endif

namespace cowshed {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument: return "invalid_argument";
    case ErrorCode::system_call: return "system_call";
    case ErrorCode::address_taken: return "address_taken";
    case ErrorCode::capacity_exceeded: return "capacity_exceeded";
    case ErrorCode::out_of_memory: return "out_of_memory";
    case ErrorCode::arena_frozen: return "arena_frozen";
    case ErrorCode::arena_not_frozen: return "arena_not_frozen";
    case ErrorCode::in_use: return "in_use";
    case ErrorCode::not_inherited: return "not_inherited";
    case ErrorCode::not_in_arena: return "not_in_arena";
    case ErrorCode::published_too_late: return "published_too_late";
    case ErrorCode::wrong_type: return "wrong_type";
    case ErrorCode::wrong_process_tree: return "wrong_process_tree";
    case ErrorCode::released: return "released";
    case ErrorCode::null_reference: return "null_reference";
    case ErrorCode::not_published: return "not_published";
    case ErrorCode::not_spawn_safe: return "not_spawn_safe";
    case ErrorCode::bad_image: return "bad_image";
    case ErrorCode::bad_parcel: return "bad_parcel";
    case ErrorCode::bad_encoding: return "bad_encoding";
    case ErrorCode::bad_recording: return "bad_recording";
    case ErrorCode::bad_message: return "bad_message";
    case ErrorCode::threads_running: return "threads_running";
    case ErrorCode::no_runtime: return "no_runtime";
    case ErrorCode::not_registered: return "not_registered";
    case ErrorCode::forkserver_ended: return "forkserver_ended";
    case ErrorCode::worker_failed: return "worker_failed";
    case ErrorCode::foreign_descriptor: return "foreign_descriptor";
    case ErrorCode::bad_channel: return "bad_channel";
    case ErrorCode::closed: return "closed";
    case ErrorCode::would_block: return "would_block";
    case ErrorCode::timed_out: return "timed_out";
    case ErrorCode::peer_stopped: return "peer_stopped";
    case ErrorCode::interrupted: return "interrupted";
    case ErrorCode::message_too_large: return "message_too_large";
    case ErrorCode::no_such_process: return "no_such_process";
    case ErrorCode::permission_denied: return "permission_denied";
    case ErrorCode::unsupported: return "unsupported";
  }
  return "unknown";
}

tl::unexpected<Error> system_error(std::string_view what, int error) {
  char buffer[128];
  const char* text = strerror_r(error, buffer, sizeof buffer);
  return tl::make_unexpected(Error{ErrorCode::system_call, error, std::string(what) + ": " + text});
}

tl::unexpected<Error> make_error(ErrorCode code, std::string message) {
  return tl::make_unexpected(Error{code, 0, std::move(message)});
}

}  // namespace cowshed
