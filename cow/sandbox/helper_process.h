#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>

#include <cowshed/base/file_descriptor.h>

namespace cowshed::cow {

// One end of a socket for messages with at most one descriptor each.
class HelperSocket {
 public:
  static constexpr std::size_t kMostBytes = 64 << 10;

  struct Message {
    std::string bytes;
    FileDescriptor file;
  };

  explicit HelperSocket(int fd) : fd_(fd) {}
  int fd() const { return fd_; }
  bool send(std::string_view bytes, int fd = -1) const;
  // Waits for a message; nullopt: the other end is closed, or sent more than kMostBytes.
  std::optional<Message> receive() const;

 private:
  int fd_;
};

// A forked process for work that may hang or crash.  It may be killed at any time.  Its only
// descriptor is its socket, and it ends when that is closed.
class HelperProcess {
 public:
  enum class Rights {
    as_ours,
    // No privilege, no content of a file, no network, no other process, little memory.
    none,
  };
  // An exception ends the process.
  using Serve = std::function<void(const HelperSocket& socket)>;

  // Returns null if no process could be created.
  static std::unique_ptr<HelperProcess> start(const char* name, Rights rights, const Serve& serve);
  HelperProcess(const HelperProcess&) = delete;
  HelperProcess& operator=(const HelperProcess&) = delete;
  // Kills the process, and does not wait if it cannot be killed now.
  ~HelperProcess();

  const HelperSocket& socket() const { return socket_; }
  // The CPU time that it has used; 0: not known.
  std::uint64_t cpu_ns() const;
  // Returns the next message; nullopt if the process has ended, slept for `most_asleep`, or sent
  // none in `most`.  (On a busy machine it may be slow without hanging.)  While an end signal of
  // this program is pending, all messages together have half a second.
  std::optional<HelperSocket::Message> receive(std::chrono::milliseconds most,
                                               std::chrono::milliseconds most_asleep) const;

 private:
  bool is_asleep() const;

  HelperProcess(pid_t pid, int socket) : pid_(pid), socket_(socket) {}

  pid_t pid_;
  HelperSocket socket_;
};

}  // namespace cowshed::cow
