#include <cowshed/tests/subjects/copiers.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/kernel_objects.h>
#include <cowshed/tests/support/needs_probes.h>

// Whatever ends cowtop: nothing of it stays in the kernel, and no setting was changed.
namespace cowshed::cowtop {
namespace {

using test::KernelObjects;
using test::Subprocess;

// Those that no other test changes, which may run at the same time.
std::string settings() {
  std::string text;
  for (const char* name : {"perf_event_paranoid", "unprivileged_bpf_disabled", "bpf_stats_enabled",
                           "kptr_restrict", "perf_event_max_stack", "yama/ptrace_scope"}) {
    text += name + std::string(" ") + test::contents_of(std::string("/proc/sys/kernel/") + name);
  }
  return text;
}

class CowtopDetach : public test::NeedsProbes {
 protected:
  void TearDown() override { EXPECT_EQ(settings(), settings_); }

  static KernelObjects objects_of(Subprocess& cowtop) {
    EXPECT_THAT(cowtop.read_until("attached").err, HasSubstr("attached to 2 processes"));
    KernelObjects objects = test::objects_held_by(cowtop.pid());
    EXPECT_GE(objects.programs.size(), 8U);
    EXPECT_GE(objects.links.size(), 8U);
    EXPECT_EQ(test::still_there(objects), objects.count());
    return objects;
  }

  test::Copiers subject_;

 private:
  const std::string settings_ = settings();
};

TEST_F(CowtopDetach, OnSignalsAndWhenTheTreeHasEnded) {
  for (const int signal : {SIGINT, SIGTERM, SIGKILL, 0}) {
    SCOPED_TRACE(signal);
    Subprocess cowtop({COWTOP, "--backend", "tracepoint", "-p", std::to_string(subject_.pid())});
    const KernelObjects objects = objects_of(cowtop);
    if (signal == 0) ::kill(subject_.children()[0], SIGTERM);
    else ::kill(cowtop.pid(), signal);
    EXPECT_EQ(cowtop.finish().exit_status(), signal == SIGKILL ? -1 : 0);
    EXPECT_TRUE(test::are_gone(objects));
  }
}

}  // namespace
}  // namespace cowshed::cowtop
