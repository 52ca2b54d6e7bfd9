// What the library does where system calls are refused, as by the seccomp filter of a container
// runtime that is older than they.

#include <cowshed/share/environment.h>
#include <cowshed/tests/share/workers/every_method.h>
#include <cowshed/tests/support/refusals.h>

namespace cowshed {
namespace {

struct Refused {
  const char* name;
  long number;
  std::optional<test::Argument> where = {};
};

const Refused refusals[] = {
    {"memfd_create", SYS_memfd_create},
    {"fcntl(F_ADD_SEALS)", SYS_fcntl, test::Argument{1, F_ADD_SEALS}},
    {"fcntl(F_OFD_SETLK)", SYS_fcntl, test::Argument{1, F_OFD_SETLK}},
    {"ftruncate", SYS_ftruncate},
    {"fallocate", SYS_fallocate},
    {"madvise(MADV_DONTFORK)", SYS_madvise, test::Argument{2, MADV_DONTFORK}},
    {"madvise(MADV_REMOVE)", SYS_madvise, test::Argument{2, MADV_REMOVE}},
    {"madvise(MADV_WIPEONFORK)", SYS_madvise, test::Argument{2, MADV_WIPEONFORK}},
    {"membarrier", SYS_membarrier},
    {"eventfd", SYS_eventfd2},
    {"socketpair", SYS_socketpair},
    {"pidfd_open", SYS_pidfd_open},
    {"pidfd_send_signal", SYS_pidfd_send_signal},
    {"waitid", SYS_waitid},
    {"prctl(PR_SET_PDEATHSIG)", SYS_prctl, test::Argument{0, PR_SET_PDEATHSIG}},
    {"signalfd", SYS_signalfd4},
    {"close_range", SYS_close_range},
    {"getsockopt", SYS_getsockopt},
    {"poll", SYS_poll},
    {"recvmsg", SYS_recvmsg},
    {"sendmsg", SYS_sendmsg},
    {"sigaction", SYS_rt_sigaction},
    {"sigprocmask", SYS_rt_sigprocmask},
};

using Case = std::tuple<Refused, int>;
class RefusedCalls : public testing::TestWithParam<Case> {
 protected:
  const Refused& refused() const { return std::get<0>(GetParam()); }
  int error() const { return std::get<1>(GetParam()); }
  // What the body says in a child in which the call is refused, or how it ended.
  std::string in_child(const std::function<std::string()>& body) const {
    const auto child = run_in_child([&] {
      prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      test::refuse_call(refused().number, refused().where, error());
      return body();
    });
    if (child.exit_code == 0) return child.said;
    return "exit " + std::to_string(child.exit_code) + ", signal " + std::to_string(child.signal);
  }
};
INSTANTIATE_TEST_SUITE_P(Calls, RefusedCalls,
                         testing::Combine(testing::ValuesIn(refusals),
                                          testing::Values(EPERM, ENOSYS)),
                         [](const testing::TestParamInfo<Case>& test) {
                           std::string name = std::get<0>(test.param).name;
                           std::erase_if(name, [](char c) {
                             return std::isalnum(static_cast<unsigned char>(c)) == 0;
                           });
                           return name + (std::get<1>(test.param) == EPERM ? "Eperm" : "Enosys");
                         });

bool names(const std::string& message, const Refused& refused) {
  const std::string call = refused.name;
  return message.find(call.substr(0, call.find('('))) != std::string::npos;
}

TEST_P(RefusedCalls, AreFoundByTheCheck) {
  const std::size_t before = check_environment().size();
  const std::string said = in_child([&] {
    const auto found = check_environment();
    std::string all;
    bool is_there = false;
    for (const RefusedCall& each : found) {
      all += each.call + ": " + std::strerror(each.error) + ": " + each.consequence + "\n";
      is_there = is_there || (names(each.call, refused()) && each.error == error() &&
                              !each.consequence.empty());
    }
    return is_there && found.size() > before ? "" : all;
  });
  EXPECT_EQ(said, "");
}

// "" or what was wrong.
std::string start_and_stop(Start method, const Refused& refused) {
  auto workers = start<stay>({.method = method, .count = 2});
  if (!workers) return names(workers.error().message, refused) ? "" : workers.error().message;
  const auto ends = workers->stop(std::chrono::steady_clock::now());
  if (!ends) return names(ends.error().message, refused) ? "" : ends.error().message;
  for (const auto& end : *ends)
    if (end.signal != SIGTERM && end.signal != SIGKILL && !names(end.error, refused))
      return end.error;
  return "";
}

// Or the library finds a way round.  Nothing hangs, nobody is left.
TEST_P(RefusedCalls, AreNamedByTheErrorOfAStart) {
  if (test::kSanitized && refused().number == SYS_rt_sigaction)
    GTEST_SKIP() << "a sanitizer calls it before main()";
  for (const Start method : {Start::fork, Start::spawn, Start::forkserver}) {
    const std::string said = in_child([&] {
      prctl(PR_SET_CHILD_SUBREAPER, 1);
      alarm(60);
      return start_and_stop(method, refused());
    });
    EXPECT_EQ(said, "") << "method " << static_cast<int>(method);
  }
}

void leave() { _exit(4); }

TEST(RefusedPoll, IsNamedByAStartByAForkserver) {
  const auto child = run_in_child([] {
    alarm(60);
    const auto server = value_of(ForkServer::start());
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    test::refuse_call(SYS_poll);
    return start<leave>({.method = Start::forkserver, .server = &server}).error().message;
  });
  EXPECT_THAT(child.said, EndsWith("poll: Operation not permitted"));
}

// Its forkserver, which cannot reap them, closes their sockets.
TEST(RefusedWaitid, LeavesNobodyWaitingForAWorker) {
  const auto child = run_in_child([] {
    alarm(60);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    test::refuse_call(SYS_waitid, test::Argument{0, P_PID}, EPERM);
    return start<leave>({.method = Start::forkserver}).value().wait().value()[0].error;
  });
  EXPECT_THAT(child.said, EndsWith("nobody knows how: its forkserver could not report it"));
}

// Its forkserver is ended then.
TEST(RefusedSignals, LetAProcessExitAllTheSame) {
  Child process([] {
    alarm(60);
    auto workers = start<stay>({.method = Start::forkserver});
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    test::refuse_call(SYS_pidfd_send_signal);
    std::exit(workers && workers->stop({}) ? 0 : 1);
    return 1;
  });
  EXPECT_EQ(process.wait(), 0);
}

}  // namespace
}  // namespace cowshed
