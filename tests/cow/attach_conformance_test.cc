#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <cowshed/cow/backend.h>
#include <cowshed/cow/proc_files.h>
#include <cowshed/tests/cow/paused_child.h>
#include <cowshed/tests/support/subprocess.h>

// Attaching to processes that run already, several at once, under each backend.
namespace cowshed::cow {
namespace {

using cowshed::test::Subprocess;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using ::testing::UnorderedElementsAreArray;

// copy_subject with all its children, which end with it.
class Tree {
 public:
  explicit Tree(std::size_t count)
      : root_({COPY_SUBJECT, "100", std::to_string(count), "10", "60000"}) {
    constexpr auto kPause = std::chrono::milliseconds(10);
    while (children_.size() < count) {
      std::this_thread::sleep_for(kPause);
      children_ = ProcFiles().children(root_.pid()).value();
    }
    std::sort(children_.begin(), children_.end());
  }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;
  ~Tree() {
    for (const pid_t child : children_) ::kill(child, SIGKILL);
  }

  pid_t root() const { return root_.pid(); }
  const std::vector<pid_t>& children() const { return children_; }

 private:
  Subprocess root_;
  std::vector<pid_t> children_;
};

class AttachConformance : public ::testing::TestWithParam<BackendChoice> {
 protected:
  void SetUp() override {
    ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    auto opened = open_backend(GetParam());
    if (!opened && GetParam() == BackendChoice::tracepoint) {
      GTEST_SKIP() << "no tracepoints here: " << opened.error().message;
    }
    ASSERT_TRUE(opened) << opened.error().message;
    backend_ = std::move(opened->backend);
  }

  std::vector<pid_t> pids(Role role) const {
    std::vector<pid_t> result;
    for (const ProcessCopies& process : backend_->measurement().processes) {
      if (process.role == role) result.push_back(process.pid);
    }
    return result;
  }
  // The PID of one that has ended, and that nobody has yet.
  static pid_t ended() {
    return cowshed::test::Child([] { return 0; }).pid();
  }

  std::unique_ptr<Backend> backend_;
};

TEST_P(AttachConformance, EachIsARootOfItsOwn) {
  const Tree first(2);
  const Tree second(1);
  const auto attached = backend_->attach({second.root(), first.root()});
  ASSERT_TRUE(attached) << attached.error().message;
  EXPECT_EQ(attached->processes, 5);
  EXPECT_THAT(attached->refused, SizeIs(0));
  ASSERT_TRUE(backend_->sample());
  EXPECT_THAT(pids(Role::root), UnorderedElementsAre(first.root(), second.root()));
  EXPECT_THAT(pids(Role::child),
              UnorderedElementsAre(first.children()[0], first.children()[1], second.children()[0]));
  for (const pid_t pid : first.children()) EXPECT_TRUE(backend_->measures(pid));
  EXPECT_FALSE(backend_->measures(::getpid()));
}

TEST_P(AttachConformance, OneThatDescendsFromAnotherIsNoRoot) {
  const Tree tree(2);
  const std::vector<pid_t>& children = tree.children();
  const std::vector<pid_t> all = {children[0], tree.root(), children[0], children[1], tree.root()};
  EXPECT_EQ(backend_->attach(all).value().processes, 3);
  EXPECT_EQ(backend_->attach(all).value().processes, 0) << "again";
  ASSERT_TRUE(backend_->sample());
  EXPECT_EQ(backend_->attach({children[0]}).value().processes, 0);
  EXPECT_THAT(pids(Role::root), ElementsAre(tree.root()));
  EXPECT_THAT(pids(Role::child), UnorderedElementsAre(children[0], children[1]));
}

TEST_P(AttachConformance, MoreOfThemLater) {
  const Tree tree(2);
  const std::vector<pid_t>& children = tree.children();
  EXPECT_EQ(backend_->attach({children[0]}).value().processes, 1);
  ASSERT_TRUE(backend_->sample());
  EXPECT_EQ(backend_->attach({tree.root()}).value().processes, 2);
  ASSERT_TRUE(backend_->sample());
  EXPECT_THAT(pids(Role::root), UnorderedElementsAre(tree.root(), children[0]))
      << "it stays what it was";
  EXPECT_THAT(pids(Role::child), ElementsAre(children[1]));
}

TEST_P(AttachConformance, OneThatHasEndedKeepsNobodyFromIt) {
  const Tree tree(1);
  const pid_t gone = ended();
  const auto attached = backend_->attach({gone, tree.root()});
  ASSERT_TRUE(attached) << attached.error().message;
  EXPECT_EQ(attached->processes, 2);
  ASSERT_THAT(attached->refused, SizeIs(1));
  EXPECT_EQ(attached->refused[0].code, ErrorCode::no_such_process);
  EXPECT_THAT(attached->refused[0].message, HasSubstr("PID " + std::to_string(gone)));
  EXPECT_EQ(backend_->attach({gone}).error().code, ErrorCode::no_such_process);
}

TEST_P(AttachConformance, NamedDescendantsOfTheCallerAreRootsBesidePid1) {
  const Tree tree(2);
  const auto attached = backend_->attach({1, tree.children()[0], tree.children()[1]});
  ASSERT_TRUE(attached) << attached.error().message;
  EXPECT_EQ(backend_->measures(1), attached->refused.empty());
  ASSERT_TRUE(backend_->sample());
  std::vector<pid_t> roots = tree.children();
  if (attached->refused.empty()) roots.push_back(1);  // as root of the machine one may look at it
  EXPECT_THAT(pids(Role::root), UnorderedElementsAreArray(roots));
}

TEST_P(AttachConformance, AKernelThreadHasNoMemory) {
  const ProcFiles proc;
  const auto processes = proc.processes().value();
  const auto thread = std::find_if(processes.begin(), processes.end(), [&](pid_t pid) {
    const auto stat = proc.stat(pid);
    return stat && stat->virtual_bytes == 0 && stat->state == 'S';
  });
  if (thread == processes.end()) GTEST_SKIP() << "this PID namespace has none";
  const auto attached = backend_->attach({*thread});
  ASSERT_FALSE(attached);
  EXPECT_EQ(attached.error().code, ErrorCode::no_such_process);
  EXPECT_THAT(attached.error().message, HasSubstr("memory of its own"));
}

// From above, as it is with PID 1.
TEST_P(AttachConformance, TheCallerIsNotMeasuredUnlessNamed) {
  const test::PausedChild child([] {});
  const auto attached = backend_->attach({::getppid()});
  if (!attached) GTEST_SKIP() << attached.error().message;
  ASSERT_TRUE(backend_->sample());
  EXPECT_TRUE(backend_->measures(::getppid()));
  EXPECT_FALSE(backend_->measures(::getpid()));
  EXPECT_FALSE(backend_->measures(child.pid()));
  for (const ProcessCopies& process : backend_->measurement().processes) {
    EXPECT_NE(process.pid, ::getpid());
  }
}

TEST_P(AttachConformance, EndedProcessesAreTakenOnce) {
  const Tree tree(3);
  ASSERT_TRUE(backend_->attach({tree.root()}));
  ASSERT_TRUE(backend_->sample());
  EXPECT_THAT(backend_->take_ended(), SizeIs(0));
  ::kill(tree.children()[1], SIGKILL);
  std::vector<ProcessCopies> taken;
  constexpr int kMostSamples = 300;
  for (int i = 0; i < kMostSamples && taken.empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(backend_->sample());
    taken = backend_->take_ended();
    EXPECT_EQ(taken.size() + backend_->measurement().processes.size(), 4U);
  }
  ASSERT_THAT(taken, SizeIs(1));
  EXPECT_EQ(taken[0].pid, tree.children()[1]);
  EXPECT_FALSE(taken[0].alive);
  EXPECT_THAT(pids(Role::child), UnorderedElementsAre(tree.children()[0], tree.children()[2]));
  ASSERT_TRUE(backend_->sample());
  EXPECT_THAT(backend_->take_ended(), SizeIs(0));
}

TEST_P(AttachConformance, ManyThatEndedBecomeFewAndTheirSumsStay) {
  constexpr std::size_t kChildren = 50;
  constexpr std::size_t kMost = 8;
  const Tree tree(kChildren);
  ASSERT_TRUE(backend_->attach({tree.root()}));
  ASSERT_TRUE(backend_->sample());
  for (std::size_t i = 1; i < kChildren; ++i) ::kill(tree.children()[i], SIGKILL);
  const auto totals = [](const Measurement& measurement) {
    std::map<std::string, std::uint64_t> result;
    for (const ProcessCopies& process : measurement.processes) {
      result["processes"] += process.processes;
      result["copied"] += process.copied_pages().value_or(0);
      result["shared"] += process.shared_at_fork_bytes.value_or(0);
      result["zero"] += process.zero_filled_pages.value_or(0);
      result["other"] += process.other_faults.value_or(0);
    }
    return result;
  };
  std::size_t listed = kChildren + 1;
  constexpr int kMostSamples = 300;
  for (int i = 0; i < kMostSamples && listed > kMost + 2; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(backend_->sample());
    const auto before = totals(backend_->measurement());
    backend_->merge_ended(kMost);
    const Measurement after = backend_->measurement();
    EXPECT_EQ(totals(after), before);
    EXPECT_EQ(after.process_count(), kChildren + 1);
    listed = after.processes.size();
  }
  EXPECT_LE(listed, kMost + 2);
  EXPECT_TRUE(backend_->measures(tree.root()));
  EXPECT_TRUE(backend_->measures(tree.children()[0]));
}

// Whose parents are taken before them, again and again.
TEST_P(AttachConformance, ALineOfForksIsTakenAsItEnds) {
  Subprocess subject({"sh", "-c", "f() { [ $1 = 0 ] || { sleep 0.05; f $(($1-1)) & }; }; f 40"});
  ASSERT_TRUE(backend_->attach({subject.pid()}));
  std::size_t taken = 0;
  std::size_t most = 0;
  constexpr int kMostSamples = 3000;
  for (int i = 0; i < kMostSamples && (i == 0 || backend_->any_alive()); ++i) {
    ASSERT_TRUE(backend_->sample());
    taken += backend_->take_ended().size();
    most = std::max(most, backend_->measurement().processes.size());
    std::this_thread::sleep_for(backend_->interval());
  }
  EXPECT_FALSE(backend_->any_alive());
  // Sampled, those are found that have not ended by then.
  if (backend_->exact()) {
    EXPECT_GT(taken, 80U);
  }
  EXPECT_LT(most, 40U);
}

TEST_P(AttachConformance, AThousandRoots) {
  const Tree tree(1000);
  const std::vector<pid_t>& children = tree.children();
  const auto attached = backend_->attach(children);
  ASSERT_TRUE(attached) << attached.error().message;
  EXPECT_EQ(attached->processes, 1000);
  ASSERT_TRUE(backend_->sample());
  EXPECT_THAT(pids(Role::root), SizeIs(1000));
  for (std::size_t i = 0; i < children.size(); i += 2) ::kill(children[i], SIGKILL);
  EXPECT_EQ(backend_->attach({tree.root()}).value().refused.size(), 0U);
  ASSERT_TRUE(backend_->sample());
  EXPECT_THAT(pids(Role::root), SizeIs(1001));
  EXPECT_THAT(pids(Role::child), SizeIs(0));
}

INSTANTIATE_TEST_SUITE_P(Each, AttachConformance,
                         ::testing::Values(BackendChoice::tracepoint, BackendChoice::pagemap),
                         [](const auto& instance) {
                           return instance.param == BackendChoice::tracepoint ? "tracepoint"
                                                                              : "pagemap";
                         });

}  // namespace
}  // namespace cowshed::cow
