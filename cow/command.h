#pragma once

#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::cow {

// A user that a process can run as.
struct User {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // all groups of the user, including `gid`
  std::string home;
};

// Descriptors that take the place of a command's standard ones; -1: the caller's.
struct Streams {
  int input = -1;
  int output = -1;
  int error = -1;
};

// Finds a user by name or number.  Errors: invalid_argument if there is no such user.
Expected<User> find_user(const std::string& name);

// A command that starts in two steps, fork() and release(), so that it can be measured from its
// first instruction.  Move-only.  Not thread-safe.  Only wait() may reap the child.
class Command {
 public:
  // Forks a child that waits for release().  The child inherits the signal mask and dispositions of
  // the caller, so call this before you change them.  It runs as `user`, if given, with that user's
  // environment.  Errors: system_call; invalid_argument for empty `arguments`.
  static Expected<Command> fork(const std::vector<std::string>& arguments,
                                const std::optional<User>& user = std::nullopt,
                                Streams streams = {});

  Command(Command&&) noexcept = default;
  // Kills a child that was never released.  A released child keeps running.
  ~Command();

  pid_t pid() const { return pid_; }
  // A pidfd_open(2) descriptor, readable when the child has ended; -1 after wait().
  int pidfd() const { return pidfd_.get(); }

  // Lets the child execute the command, by PATH, and returns after the exec.  Errors: those of
  // execvp, with errno, such as ENOENT and EACCES; permission_denied without errno if the child may
  // not change to the user.
  Expected<void> release();

  // Waits for the end of the child and returns its status of waitpid(2).  Errors: system_call.
  Expected<int> wait();

 private:
  Command() = default;

  std::string name_;
  std::string user_;
  pid_t pid_ = -1;
  FileDescriptor pidfd_;
  FileDescriptor go_;     // a byte here lets the child exec
  FileDescriptor error_;  // receives the child's Failure, or end of file after the exec
};

}  // namespace cowshed::cow
