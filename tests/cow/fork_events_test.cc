#include <cstdio>
#include <gtest/gtest.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <cowshed/cow/fork_events.h>

namespace cowshed::cow {
namespace {

bool is_kernel_of_6_6() {
  utsname name{};
  int major = 0;
  int minor = 0;
  return ::uname(&name) == 0 && std::sscanf(name.release, "%d.%d", &major, &minor) == 2 &&
         (major > 6 || (major == 6 && minor >= 6));
}

TEST(ForkEvents, EveryProcessAndNoThread) {
  auto forks = ForkEvents::open();
  if (!is_kernel_of_6_6()) {
    EXPECT_EQ(forks, nullptr);
    return;
  }
  if (!forks) GTEST_SKIP() << "the kernel sends no process events here, as in a PID namespace";
  std::vector<pid_t> children;
  std::vector<pid_t> told;
  for (int i = 0; i < 400; ++i) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    children.push_back(child);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    if (i % 100 != 99) continue;
    std::thread([] {}).join();
    // As often as a backend would: the whole machine's events are in the buffer.
    const ForkEvents::Taken taken = forks->take();
    ASSERT_TRUE(taken.complete);
    for (const ForkEvent& fork : taken.events) {
      if (fork.parent == ::getpid()) told.push_back(fork.child);
    }
  }
  EXPECT_EQ(told, children);
  EXPECT_GT(forks->cpu_ns(), 0U);
}

}  // namespace
}  // namespace cowshed::cow
