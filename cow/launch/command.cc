#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <string_view>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/command.h>

namespace cowshed::cow {
namespace {

struct Failure {
  enum class Of : std::uint8_t { become_user, exec } of = Of::exec;
  int error = 0;
};

// Returns 0 or an errno.  Allocates nothing, because it runs in a forked child.
int become(const User& user) noexcept {
  // The groups first: only root may change them.
  if (::setgroups(user.groups.size(), user.groups.data()) != 0 ||
      ::setresgid(user.gid, user.gid, user.gid) != 0 ||
      ::setresuid(user.uid, user.uid, user.uid) != 0) {
    return errno;
  }
  return 0;
}

struct Child {
  char* const* arguments;
  char* const* environment;
  const User* user;  // null: the caller's
  Streams streams;

  [[noreturn]] void run(int go_fd, int error_fd) const {
    char go = 0;
    // End of file: the owner ended without a release().
    if (TEMP_FAILURE_RETRY(::read(go_fd, &go, 1)) != 1) ::_exit(EXIT_FAILURE);
    Failure failure{Failure::Of::become_user, user == nullptr ? 0 : become(*user)};
    if (failure.error == 0) {
      for (const auto& [from, to] :
           {std::pair(streams.input, STDIN_FILENO), std::pair(streams.output, STDOUT_FILENO),
            std::pair(streams.error, STDERR_FILENO)})
        if (from >= 0) ::dup2(from, to);
      ::execvpe(arguments[0], arguments, environment);
      failure = {Failure::Of::exec, errno};
    }
    TEMP_FAILURE_RETRY(::write(error_fd, &failure, sizeof failure));
    ::_exit(EXIT_FAILURE);
  }
};

bool make_pipe(FileDescriptor& to_read, FileDescriptor& to_write) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return false;
  to_read = FileDescriptor(ends[0]);
  to_write = FileDescriptor(ends[1]);
  return true;
}

// Returns pointers into `words`, for execvpe().
std::vector<char*> pointers_to(const std::vector<std::string>& words) {
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// Returns the environment of this process, with HOME, USER and LOGNAME of `user`.
std::vector<std::string> environment_of(const User& user) {
  const std::array<std::string, 3> set = {"HOME=" + user.home, "USER=" + user.name,
                                          "LOGNAME=" + user.name};
  const auto is_set = [&](std::string_view variable) {
    return std::ranges::any_of(set, [&](const std::string& each) {
      return variable.starts_with(each.substr(0, each.find('=') + 1));
    });
  };
  std::vector<std::string> result(set.begin(), set.end());
  for (char** each = environ; *each != nullptr; ++each)
    if (!is_set(*each)) result.emplace_back(*each);
  return result;
}

tl::unexpected<Error> no_pidfd(const std::string& name, int error) {
  if (error != EPERM && error != ENOSYS) return system_error("cannot start " + name, error);
  return tl::make_unexpected(
      Error{ErrorCode::permission_denied, error,
            "cannot start " + name +
                ": pidfd_open(2) is refused, as by a container's seccomp filter (run outside of "
                "it, or allow pidfd_open)"});
}

}  // namespace

Expected<User> find_user(const std::string& name) {
  const passwd* entry = ::getpwnam(name.c_str());
  uid_t uid = 0;
  const char* end = name.data() + name.size();
  const auto number = std::from_chars(name.data(), end, uid);
  if (entry == nullptr && number.ec == std::errc() && number.ptr == end) entry = ::getpwuid(uid);
  if (entry == nullptr)
    return make_error(ErrorCode::invalid_argument, "'" + name + "': there is no such user");
  User user{entry->pw_name, entry->pw_uid, entry->pw_gid, std::vector<gid_t>(16), entry->pw_dir};
  auto count = static_cast<int>(user.groups.size());
  while (::getgrouplist(user.name.c_str(), user.gid, user.groups.data(), &count) < 0)
    user.groups.resize(static_cast<std::size_t>(count));
  user.groups.resize(static_cast<std::size_t>(count));
  return user;
}

Expected<Command> Command::fork(const std::vector<std::string>& arguments,
                                const std::optional<User>& user, Streams streams) {
  if (arguments.empty()) return make_error(ErrorCode::invalid_argument, "no command given");
  const std::vector<char*> pointers = pointers_to(arguments);
  const auto variables = user ? environment_of(*user) : std::vector<std::string>();
  const std::vector<char*> environment = pointers_to(variables);
  const Child child{pointers.data(), user ? environment.data() : environ, user ? &*user : nullptr,
                    streams};

  Command command;
  command.name_ = arguments[0];
  if (user) command.user_ = user->name;
  FileDescriptor go;
  FileDescriptor error;
  if (!make_pipe(go, command.go_) || !make_pipe(command.error_, error))
    return system_error("cannot start " + command.name_, errno);
  const pid_t pid = ::fork();
  if (pid < 0) return system_error("cannot start " + command.name_, errno);
  if (pid == 0) {
    command.go_ = {};
    command.error_ = {};
    child.run(go.get(), error.get());
  }
  command.pid_ = pid;
  command.pidfd_ = FileDescriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!command.pidfd_) return no_pidfd(command.name_, errno);
  return command;
}

Command::~Command() {
  const bool waiting = pid_ > 0 && go_;
  go_ = {};
  if (waiting) ::waitpid(pid_, nullptr, 0);
}

Expected<void> Command::release() {
  if (!go_) return make_error(ErrorCode::invalid_argument, name_ + ": already released");
  // If the child was killed, the pipe has no reader, and SIGPIPE must not kill this process.
  sigset_t pipe_signal;
  sigset_t old_mask;
  ::sigemptyset(&pipe_signal);
  ::sigaddset(&pipe_signal, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &pipe_signal, &old_mask);
  const ssize_t written = TEMP_FAILURE_RETRY(::write(go_.get(), "", 1));
  const int write_error = errno;
  if (written < 0) {
    const timespec no_time{};
    ::sigtimedwait(&pipe_signal, nullptr, &no_time);
  }
  ::pthread_sigmask(SIG_SETMASK, &old_mask, nullptr);
  go_ = {};
  if (written < 0) return system_error(name_ + ": ended before it was started", write_error);

  Failure failure;
  const ssize_t got = TEMP_FAILURE_RETRY(::read(error_.get(), &failure, sizeof failure));
  error_ = {};
  if (got != sizeof failure) return {};
  if (failure.of == Failure::Of::exec) return system_error(name_, failure.error);
  return make_error(ErrorCode::permission_denied,
                    fmt::format("{} cannot be run as {}: {}; that takes root", name_, user_,
                                std::strerror(failure.error)));
}

Expected<int> Command::wait() {
  int status = 0;
  if (TEMP_FAILURE_RETRY(::waitpid(pid_, &status, 0)) < 0) return system_error("waitpid", errno);
  pid_ = -1;
  pidfd_ = {};
  return status;
}

}  // namespace cowshed::cow
