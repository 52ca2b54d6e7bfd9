#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>
#include <cowshed/share/wire/content.h>

// What a worker, its starter and the forkserver tell each other: whole messages over pairs of
// AF_UNIX sockets of type SOCK_SEQPACKET, each worker with one of its own.  A message waits in the
// socket, whoever has ended; large ones are a memfd, so that sending never waits for the receiver.
namespace cowshed::launch {

enum class MessageKind : std::uint32_t {
  // to a spawned worker, or to the forkserver with the worker's socket; numbers: rank, count
  job,
  serve,  // to a process that is to be a forkserver
  adopt,  // a parcel of arenas, that the next job needs; also what send_arena() sends

  // from the forkserver
  refused,  // the content, a text, says why
  exited,   // numbers: si_code, si_status
  // from a worker
  started,     // one of a forkserver: numbers: PID, ns that fork() took; with a pidfd
  begun,       // a spawned one has come to its function
  result,      // numbers: the exit code to come
  failure,     // the content: what an exception says
  stray_write  // the bytes of a StrayWrite
};

struct Message {
  MessageKind kind = {};
  std::array<std::int64_t, 2> numbers = {};
  FileDescriptor extra;
  internal::Content content;
};

// First and second end; CLOEXEC.
Expected<std::pair<FileDescriptor, FileDescriptor>> make_socket_pair();

// `extra` is sent along, -1: none.  Thread-safe.  Errors: system_call (EPIPE: nobody has the other
// end any more; no SIGPIPE).
Expected<void> send_message(int socket, MessageKind kind, std::array<std::int64_t, 2> numbers = {},
                            const internal::Content& content = {}, int extra = -1);

// Of kind refused or failure.
void send_text(int socket, MessageKind kind, const std::string& text);

// For signal handlers: as many bytes as a message takes inline.
void send_bytes(int socket, MessageKind kind, const void* data, std::size_t size) noexcept;

// Nothing when the other end is closed (errno is EPIPE or ECONNRESET), or when nothing is there
// (EAGAIN).  One thread at a time.  Messages without inline bytes have one size: with 0 for
// `most_inline` and MSG_WAITALL they are received from a stream socket, too.  Errors: bad_message;
// system_call, also EMFILE: what came with the message is lost.
Expected<std::optional<Message>> receive_message(
    int socket, int flags = 0, std::size_t most_inline = internal::Content::kMostInline);

}  // namespace cowshed::launch
