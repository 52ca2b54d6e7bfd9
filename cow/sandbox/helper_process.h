#pragma once

// Room cow/sandbox: child processes without rights that read files of measured programs.  May use
// base, cow/proc.

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>

#include <cowshed/base/file_descriptor.h>

namespace cowshed::cow {

// One end of a socket that carries messages, each with a descriptor or none.
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
  // Waits; nullopt at the other's end.
  std::optional<Message> receive() const;

 private:
  int fd_;
};

// A forked process that does what may hang or crash, and that may be killed.  It has no descriptor
// but its socket, and ends when that is closed.
class HelperProcess {
 public:
  enum class Rights {
    as_ours,
    // No privilege, no file, no network, no other process, little memory.
    none,
  };
  using Serve = std::function<void(const HelperSocket& socket)>;

  // Null where no process could be made.
  static std::unique_ptr<HelperProcess> start(const char* name, Rights rights, const Serve& serve);
  HelperProcess(const HelperProcess&) = delete;
  HelperProcess& operator=(const HelperProcess&) = delete;
  // Does not wait for a process that cannot be killed now.
  ~HelperProcess();

  const HelperSocket& socket() const { return socket_; }
  // The next message; nullopt where the process has ended, has slept for `most_asleep`, or has sent
  // none in `most`: on a busy machine it may be slow without being stuck.  An end signal that waits
  // for this program cuts the time short.
  std::optional<HelperSocket::Message> receive(std::chrono::milliseconds most,
                                               std::chrono::milliseconds most_asleep) const;

 private:
  bool is_asleep() const;

  HelperProcess(pid_t pid, int socket) : pid_(pid), socket_(socket) {}

  pid_t pid_;
  HelperSocket socket_;
};

}  // namespace cowshed::cow
