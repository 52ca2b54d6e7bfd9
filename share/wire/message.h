#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>
#include <cowshed/share/wire/content.h>

// Messages between a worker, the process that started it and the forkserver.  Each worker has its
// own pair of AF_UNIX sockets of type SOCK_SEQPACKET.
//
// A message arrives whole and waits in the socket even if its sender has ended.  Large messages are
// a memfd, so sending never waits for the receiver.
namespace cowshed::launch {

enum class MessageKind : std::uint32_t {
  // To a spawned worker, or to the forkserver with the worker's socket.
  job,    // numbers: rank, count
  serve,  // become a forkserver
  adopt,  // a parcel of arenas that the next job needs; send_arena() sends this, too

  // From the forkserver.
  refused,  // content: a text with the reason
  exited,   // numbers: si_code, si_status

  // From a worker.
  started,     // the forkserver has forked it; numbers: PID, ns for fork(); with a pidfd
  begun,       // a spawned worker has reached its function
  result,      // numbers: the exit code that follows
  failure,     // content: the text of an exception
  stray_write  // content: the bytes of a StrayWrite
};

struct Message {
  MessageKind kind = {};
  std::array<std::int64_t, 2> numbers = {};
  FileDescriptor extra;
  internal::Content content;
};

// Returns both ends, close-on-exec.
Expected<std::pair<FileDescriptor, FileDescriptor>> make_socket_pair();

// Sends the descriptor `extra` along, unless it is -1.  Thread-safe.  Raises no SIGPIPE.  Errors:
// system_call (EPIPE: the other end is closed).
Expected<void> send_message(int socket, MessageKind kind, std::array<std::int64_t, 2> numbers = {},
                            const internal::Content& content = {}, int extra = -1);

// For kinds refused and failure.  Returns the exit status of a process that ends with this message:
// 1, or kUnheard if it could not be sent.
int send_text(int socket, MessageKind kind, const std::string& text);

// Of a worker or a forkserver that cannot send to its starter: EX_IOERR of <sysexits.h>.
constexpr int kUnheard = 74;

// For signal handlers.  Sends at most Content::kMostInline bytes.  Ignores errors.
void send_bytes(int socket, MessageKind kind, const void* data, std::size_t size) noexcept;

// Returns nullopt if the other end is closed (errno is EPIPE or ECONNRESET) or no message is there
// (EAGAIN).  If it throws std::bad_alloc, the message is still there, unless it has more than 250
// descriptors.  Only one thread at a time may receive from a socket.  A stream socket works with
// MSG_WAITALL and `most_inline` 0: messages without inline bytes all have the same size.  Errors:
// bad_message; system_call (EMFILE: the message's descriptors are lost).
Expected<std::optional<Message>> receive_message(
    int socket, int flags = 0, std::size_t most_inline = internal::Content::kMostInline);

}  // namespace cowshed::launch
