#include <exception>
#include <grp.h>
#include <sys/socket.h>

#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {

ChildResult run_in_child(const std::function<std::string()>& body) {
  Child child([&](const Line& test) {
    try {
      test.say(body());
    } catch (const std::exception& failure) {
      test.say(std::string("exception: ") + failure.what());
    }
    return 0;
  });
  ChildResult result;
  result.said = child.hear().value_or("");
  const int end = child.wait();
  (end < 0 ? result.signal : result.exit_code) = end < 0 ? -end : end;
  return result;
}

void become_nobody() {
  constexpr uid_t kNobody = 65534;
  if (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
      setresuid(kNobody, kNobody, kNobody) != 0 || prctl(PR_SET_DUMPABLE, 1) != 0) {
    throw std::runtime_error("cannot become nobody");
  }
}

void Line::say(const std::string& text) const {
  const std::string packet = "!" + text;  // an empty packet would be the end
  if (send(end_, packet.data(), packet.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(packet.size()))
    throw std::runtime_error("nobody listens");
}

// Small texts take no memory but the string's own, for children whose copies are counted.
std::optional<std::string> Line::hear() const {
  std::string packet(1, '\0');
  ssize_t size = 0;
  while ((size = recv(end_, packet.data(), 1, MSG_PEEK | MSG_TRUNC)) < 0 && errno == EINTR) {
  }
  if (size <= 0) return std::nullopt;
  packet.resize(static_cast<std::size_t>(size));
  if (recv(end_, packet.data(), packet.size(), 0) != size) return std::nullopt;
  return packet.substr(1);
}

Child::Child(const std::function<int(const Line& test)>& body) {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    throw std::runtime_error("socketpair");
  pid_ = fork();
  if (pid_ == 0) {
    close(ends[0]);
    int code = 98;
    try {
      code = body(Line(ends[1]));
    } catch (const std::exception&) {
    }
    _exit(code);
  }
  close(ends[1]);
  end_ = ends[0];
  if (pid_ < 0) throw std::runtime_error("fork");
}

Child::~Child() {
  hang_up();
  if (!reaped_) {
    signal(SIGKILL);
    wait();
  }
}

void Child::hang_up() {
  if (end_ >= 0) close(std::exchange(end_, -1));
}

void Child::signal(int number) const { kill(pid_, number); }

int Child::wait() {
  int status = 0;
  while (!reaped_ && waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  if (!reaped_) {
    reaped_ = true;
    result_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  return result_;
}

bool Child::running() const {
  siginfo_t info{};
  return !reaped_ &&
         waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == 0;
}

void Child::stop() const {
  signal(SIGSTOP);
  int status = 0;
  waitpid(pid_, &status, WUNTRACED);
}

}  // namespace cowshed::test
