#include <poll.h>

#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {

int Finished::exit_status() const { return WIFEXITED(status) ? WEXITSTATUS(status) : -1; }

Subprocess::Subprocess(const std::vector<std::string>& arguments,
                       const std::function<void()>& in_child) {
  std::vector<char*> pointers;
  pointers.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments)
    pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  int out[2];
  int err[2];
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0)
    throw std::runtime_error("pipe2");
  pid_ = ::fork();
  if (pid_ == 0) {
    ::dup2(out[1], STDOUT_FILENO);
    ::dup2(err[1], STDERR_FILENO);
    if (in_child) in_child();
    ::execvp(pointers[0], pointers.data());
    ::_exit(126);
  }
  ::close(out[1]);
  ::close(err[1]);
  out_ = out[0];
  err_ = err[0];
}

Subprocess::~Subprocess() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  for (const int end : {out_, err_})
    if (end >= 0) ::close(end);
}

bool Subprocess::read_some() {
  std::array<pollfd, 2> ends{{{out_, POLLIN, 0}, {err_, POLLIN, 0}}};
  if (out_ < 0 && err_ < 0) return false;
  ::poll(ends.data(), ends.size(), -1);
  for (const pollfd& end : ends) {
    if (end.fd < 0 || end.revents == 0) continue;
    std::array<char, 65536> buffer;
    const ssize_t got = ::read(end.fd, buffer.data(), buffer.size());
    if (got > 0) {
      (end.fd == out_ ? finished_.out : finished_.err)
          .append(buffer.data(), static_cast<std::size_t>(got));
    } else {
      (end.fd == out_ ? out_ : err_) = -1;
      ::close(end.fd);
    }
  }
  return true;
}

const Finished& Subprocess::read_until(std::string_view text) {
  const auto has_come = [&] {
    return finished_.out.find(text) != std::string::npos ||
           finished_.err.find(text) != std::string::npos;
  };
  while (!has_come() && read_some()) {
  }
  return finished_;
}

Finished Subprocess::finish() {
  while (read_some()) {
  }
  ::waitpid(pid_, &finished_.status, 0);
  pid_ = -1;
  return std::move(finished_);
}

Finished run(const std::vector<std::string>& arguments, const std::function<void()>& in_child) {
  return Subprocess(arguments, in_child).finish();
}

}  // namespace cowshed::test
