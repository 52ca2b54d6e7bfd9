#include <array>
#include <cstdint>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/cow/backend.h>

namespace cowshed::cow {
namespace {

// What this process has called read(2) for, in all its threads.
std::uint64_t reads_so_far() {
  std::ifstream io("/proc/self/io");
  for (std::string name; io >> name;) {
    std::uint64_t count = 0;
    io >> count;
    if (name == "syscr:") return count;
  }
  return 0;
}

// Forks so many children, which end at once, for each byte that it gets, and says so with another.
class ForkingProcess {
 public:
  explicit ForkingProcess(int children) {
    EXPECT_EQ(pipe(to_.data()), 0);
    EXPECT_EQ(pipe(from_.data()), 0);
    pid_ = fork();
    if (pid_ != 0) return;
    close(to_[1]);
    for (char byte = 0; read(to_[0], &byte, 1) == 1;) {
      for (int i = 0; i < children; ++i) {
        const pid_t child = fork();
        if (child == 0) _exit(0);
        waitpid(child, nullptr, 0);
      }
      if (write(from_[1], &byte, 1) != 1) break;
    }
    _exit(0);
  }
  ~ForkingProcess() {
    for (const int end : {to_[0], to_[1], from_[0], from_[1]}) close(end);
    waitpid(pid_, nullptr, 0);
  }
  ForkingProcess(const ForkingProcess&) = delete;
  ForkingProcess& operator=(const ForkingProcess&) = delete;

  pid_t pid() const { return pid_; }
  void fork_all() {
    char byte = 0;
    EXPECT_EQ(write(to_[1], &byte, 1), 1);
    EXPECT_EQ(read(from_[0], &byte, 1), 1);
  }

 private:
  std::array<int, 2> to_{};
  std::array<int, 2> from_{};
  pid_t pid_ = 0;
};

TEST(TracepointBackend, AParentIsLookedAtOnceForAllItsNewChildren) {
  constexpr int kChildren = 500;
  ForkingProcess parent(kChildren);
  auto opened = open_backend(BackendChoice::tracepoint);
  if (!opened) GTEST_SKIP() << "no tracepoints here: " << opened.error().message;
  Backend& backend = *opened->backend;
  ASSERT_TRUE(backend.attach({parent.pid()}));
  ASSERT_TRUE(backend.sample());
  parent.fork_all();
  const std::uint64_t before = reads_so_far();
  ASSERT_GT(before, 0U);
  ASSERT_TRUE(backend.sample());
  EXPECT_LT(reads_so_far() - before, std::uint64_t{kChildren});
  EXPECT_EQ(backend.measurement().processes.size(), std::size_t{kChildren} + 1);
}

}  // namespace
}  // namespace cowshed::cow
