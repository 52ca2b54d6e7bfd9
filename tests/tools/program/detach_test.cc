#include <cowshed/probes/support.h>
#include <cowshed/tests/support/kernel_objects.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

// Whatever ends cowtop: nothing of it stays in the kernel, and no setting was changed.
namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::KernelObjects;
using test::Subprocess;

// Those that no other test changes, which may run at the same time.
std::string settings() {
  std::string text;
  for (const char* name : {"perf_event_paranoid", "unprivileged_bpf_disabled", "bpf_stats_enabled",
                           "kptr_restrict", "perf_event_max_stack", "yama/ptrace_scope"}) {
    std::ifstream file(std::string("/proc/sys/kernel/") + name);
    text += name + std::string(" ") + std::string(std::istreambuf_iterator<char>(file), {});
  }
  return text;
}

class CowtopDetach : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto supported = probe_support(); !supported)
      GTEST_SKIP() << supported.error().message;
    settings_ = settings();
  }
  void TearDown() override {
    if (!IsSkipped()) EXPECT_EQ(settings(), settings_);
  }

  static std::vector<std::string> attach_to(const Subprocess& subject) {
    return {COWTOP, "--sites", "--backend", "tracepoint", "-p", std::to_string(subject.pid())};
  }
  static KernelObjects objects_of(Subprocess& cowtop) {
    EXPECT_THAT(cowtop.read_until("attached").err, HasSubstr("attached to 2 processes"));
    KernelObjects objects = test::objects_held_by(cowtop.pid());
    EXPECT_GE(objects.programs.size(), 8U);
    EXPECT_EQ(test::still_there(objects), objects.count());
    return objects;
  }

  Subprocess subject_{{COPY_SUBJECT, "100", "1", "50", "60000"}};
  pid_t child_ = std::stoi(subject_.read_until("\n").out);

 private:
  std::string settings_;
};

TEST_F(CowtopDetach, OnSignalsAndWhenTheTreeHasEnded) {
  for (const int signal : {SIGINT, SIGTERM, SIGKILL, 0}) {
    SCOPED_TRACE(signal);
    Subprocess cowtop(attach_to(subject_));
    const KernelObjects objects = objects_of(cowtop);
    if (signal == 0) ::kill(child_, SIGTERM);
    else ::kill(cowtop.pid(), signal);
    EXPECT_EQ(cowtop.finish().exit_status(), signal == SIGKILL ? -1 : 0);
    EXPECT_TRUE(test::are_gone(objects));
  }
}

TEST_F(CowtopDetach, OnAFullDiskUnderItsReport) {
  auto arguments = attach_to(subject_);
  arguments.insert(arguments.begin() + 1, {"-o", "/dev/full"});
  Subprocess cowtop(arguments);
  const KernelObjects objects = objects_of(cowtop);
  ::kill(cowtop.pid(), SIGINT);
  const Finished finished = cowtop.finish();
  EXPECT_EQ(finished.exit_status(), 125);
  EXPECT_THAT(finished.err, HasSubstr("cannot write to /dev/full: No space left on device"));
  EXPECT_TRUE(test::are_gone(objects));
}

}  // namespace
}  // namespace cowshed::cowtop
