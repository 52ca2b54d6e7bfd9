// What the library does where system calls are refused, as by the seccomp filter of a container
// runtime that is older than they.

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/membarrier.h>
#include <optional>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/environment.h>
#include <cowshed/share/workers.h>

#include "child.h"
#include "every_method.h"
#include "system_call_failures.h"

namespace cowshed {
namespace {

struct Refused {
  const char* name;
  long number;
  std::optional<test::Argument> where;
};

const Refused refusals[] = {
    {"memfd_create", SYS_memfd_create, {}},
    {"fcntl(F_ADD_SEALS)", SYS_fcntl, test::Argument{1, F_ADD_SEALS}},
    {"fcntl(F_OFD_SETLK)", SYS_fcntl, test::Argument{1, F_OFD_SETLK}},
    {"ftruncate", SYS_ftruncate, {}},
    {"fallocate", SYS_fallocate, {}},
    {"madvise(MADV_DONTFORK)", SYS_madvise, test::Argument{2, MADV_DONTFORK}},
    {"madvise(MADV_REMOVE)", SYS_madvise, test::Argument{2, MADV_REMOVE}},
    {"madvise(MADV_WIPEONFORK)", SYS_madvise, test::Argument{2, MADV_WIPEONFORK}},
    {"membarrier", SYS_membarrier, {}},
    {"eventfd", SYS_eventfd2, {}},
    {"socketpair", SYS_socketpair, {}},
    {"pidfd_open", SYS_pidfd_open, {}},
    {"pidfd_send_signal", SYS_pidfd_send_signal, {}},
    {"waitid", SYS_waitid, {}},
    {"prctl(PR_SET_PDEATHSIG)", SYS_prctl, test::Argument{0, PR_SET_PDEATHSIG}},
    {"signalfd", SYS_signalfd4, {}},
    {"close_range", SYS_close_range, {}},
};

std::vector<std::pair<Refused, int>> every_refusal() {
  std::vector<std::pair<Refused, int>> all;
  for (const Refused& refused : refusals) {
    all.emplace_back(refused, EPERM);
    all.emplace_back(refused, ENOSYS);
  }
  return all;
}

std::string name_of(const testing::TestParamInfo<std::pair<Refused, int>>& test) {
  std::string name = test.param.first.name;
  std::erase_if(name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; });
  return name + (test.param.second == EPERM ? "Eperm" : "Enosys");
}

class RefusedCalls : public testing::TestWithParam<std::pair<Refused, int>> {};
INSTANTIATE_TEST_SUITE_P(Calls, RefusedCalls, testing::ValuesIn(every_refusal()), name_of);

bool names(const std::string& message, const Refused& refused) {
  const std::string call = refused.name;
  return message.find(call.substr(0, call.find('('))) != std::string::npos;
}

TEST_P(RefusedCalls, AreFoundByTheCheck) {
  const auto& [refused, error] = GetParam();
  const auto child = test::run_in_child([&, call = refused, number = error]() -> std::string {
    const std::size_t before = check_environment().size();
    if (auto why = test::refuse_system_call(call.number, call.where, number); !why.empty()) {
      return "skip: " + why;
    }
    const auto found = check_environment();
    std::string said;
    for (const RefusedCall& each : found) {
      said += each.call + ": " + std::strerror(each.error) + ": " + each.consequence + "\n";
    }
    const bool is_there = std::any_of(found.begin(), found.end(), [&](const RefusedCall& each) {
      return names(each.call, call) && each.error == number && !each.consequence.empty();
    });
    return is_there && found.size() > before ? "found" : said;
  });
  if (child.said.starts_with("skip: ")) {
    GTEST_SKIP() << child.said;
  }
  EXPECT_EQ(child.said, "found");
}

void nap() {
  for (;;) {
    pause();
  }
}

// "" or what was wrong.
std::string start_and_stop(Start method, const Refused& refused) {
  auto workers = start<nap>({.method = method, .count = 2});
  if (!workers) {
    return names(workers.error().message, refused) ? "" : workers.error().message;
  }
  const auto ends = workers->stop(std::chrono::steady_clock::now());
  if (!ends) {
    return names(ends.error().message, refused) ? "" : ends.error().message;
  }
  for (const auto& end : *ends) {
    if (end.signal != SIGTERM && end.signal != SIGKILL && !names(end.error, refused)) {
      return end.error;
    }
  }
  return "";
}

// Or the library finds a way round.  Nothing hangs, nobody is left.
TEST_P(RefusedCalls, AreNamedByTheErrorOfAStart) {
  const auto& [refused, error] = GetParam();
  for (const Start method : {Start::fork, Start::spawn, Start::forkserver}) {
    const auto child = test::run_in_child([&, call = refused, number = error]() -> std::string {
      prctl(PR_SET_CHILD_SUBREAPER, 1);
      alarm(60);
      if (auto why = test::refuse_system_call(call.number, call.where, number); !why.empty()) {
        return "skip: " + why;
      }
      return start_and_stop(method, call);
    });
    if (child.said.starts_with("skip: ")) {
      GTEST_SKIP() << child.said;
    }
    EXPECT_EQ(child.said, "") << "method " << static_cast<int>(method);
    EXPECT_EQ(child.signal, 0) << "method " << static_cast<int>(method);
  }
}

// Its forkserver is ended then.
TEST(RefusedSignals, LetAProcessExitAllTheSame) {
  const pid_t process = fork();
  ASSERT_GE(process, 0);
  if (process == 0) {
    alarm(60);
    auto workers = start<nap>({.method = Start::forkserver});
    const auto why = test::refuse_system_call(SYS_pidfd_send_signal, {}, EPERM);
    std::exit(workers && workers->stop({}) && why.empty() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(process, &status, 0), process);
  EXPECT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace cowshed
