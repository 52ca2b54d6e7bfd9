#include <cowshed/cow/backend.h>
#include <cowshed/tests/support/test.h>

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

// A shell, which forks so many children, that end at once, for each line that it gets, and says so
// with another.  Not this program, whose mappings are thousands under a sanitizer.
class ForkingProcess {
 public:
  explicit ForkingProcess(int children) {
    EXPECT_EQ(pipe(to_.data()), 0);
    EXPECT_EQ(pipe(from_.data()), 0);
    const std::string script = "while read -r line; do i=0; while [ $i -lt " +
                               std::to_string(children) +
                               " ]; do (:); i=$((i + 1)); done; echo; done";
    pid_ = fork();
    if (pid_ != 0) return;
    dup2(to_[0], STDIN_FILENO);
    dup2(from_[1], STDOUT_FILENO);
    for (const int end : {to_[0], to_[1], from_[0], from_[1]}) close(end);
    execl("/bin/sh", "sh", "-c", script.c_str(), nullptr);
    _exit(127);
  }
  ~ForkingProcess() {
    for (const int end : {to_[0], to_[1], from_[0], from_[1]}) close(end);
    waitpid(pid_, nullptr, 0);
  }
  ForkingProcess(const ForkingProcess&) = delete;
  ForkingProcess& operator=(const ForkingProcess&) = delete;

  pid_t pid() const { return pid_; }
  void fork_all() {
    char line = '\n';
    EXPECT_EQ(write(to_[1], &line, 1), 1);
    EXPECT_EQ(read(from_[0], &line, 1), 1);
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
  parent.fork_all();  // it is a shell by then
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
