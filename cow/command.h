#pragma once

#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::cow {

// Whom a process can be run as.
struct User {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // all of the user's, `gid` among them
  std::string home;
};

// By name, or by number.  Errors: invalid_argument where there is no such user.
Expected<User> find_user(const std::string& name);

// This process's environment, with HOME, USER and LOGNAME as `user` has them.
std::vector<std::string> environment_of(const User& user);

// Makes this process one of `user`'s.  For a forked child: allocates nothing.  Returns 0 or an
// errno.
int become(const User& user) noexcept;

// A command that is started in two steps, so that it can be measured from its first instruction:
// fork, then, when the caller is ready, exec.  Move-only; one owner of its wait.  Not thread-safe.
class Command {
 public:
  // Forks a child that waits for release().  It has the caller's signal mask and dispositions as
  // they were before; call this before changing either.  It runs as `user`, if one is given, and
  // with that user's environment.  Errors: system_call, invalid_argument for an empty `arguments`.
  static Expected<Command> fork(const std::vector<std::string>& arguments,
                                const std::optional<User>& user = std::nullopt);

  Command(Command&&) noexcept = default;
  // A child that was never released is ended; a released one is left to run.
  ~Command();

  pid_t pid() const { return pid_; }
  // Readable once the child has ended (pidfd_open(2)); -1 once it is reaped.
  int pidfd() const { return pidfd_.get(); }

  // Lets the child exec, looked up in PATH, and returns when it has.  The error carries errno of
  // execvp: ENOENT where there is no such command, EACCES and others where it cannot be run.
  // permission_denied, without errno: it may not become the user.
  Expected<void> release();

  // Waits for the end, and returns the status as of waitpid(2).
  Expected<int> wait();

 private:
  Command() = default;

  std::string name_;
  std::string user_;
  pid_t pid_ = -1;
  FileDescriptor pidfd_;
  FileDescriptor go_;     // a byte written here lets the child exec
  FileDescriptor error_;  // a Failure of the child's comes back here; end of file when it succeeded
};

}  // namespace cowshed::cow
