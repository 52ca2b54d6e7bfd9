#include <cowshed/tests/support/test.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/measure/measure.h>

namespace cowshed::cowtop {
namespace {

using ::testing::ExitedWithCode;

constexpr const char* kWhy = "cowtop: incomplete: no sample";
constexpr int kLost = 99;

// One of its samples fails.
class FailingBackend : public cow::Backend {
 public:
  explicit FailingBackend(int failing) : failing_(failing) {}
  std::string_view name() const override { return "failing"; }
  bool exact() const override { return true; }
  Expected<void> track_command(pid_t /*child*/) override { return {}; }
  Expected<cow::Attached> attach(const std::vector<pid_t>& /*roots*/) override {
    return cow::Attached{1, {}};
  }
  bool measures(pid_t /*pid*/) const override { return true; }
  Expected<void> sample() override {
    if (++samples_ == failing_) return make_error(ErrorCode::system_call, "no sample");
    return {};
  }
  std::chrono::milliseconds interval() const override { return std::chrono::milliseconds(1); }
  bool any_alive() const override { return true; }
  using Backend::measurement;
  cow::Measurement measurement(const cow::CodeOf& /*code*/) const override {
    cow::Measurement result;
    result.duration_s = samples_;
    return result;
  }
  void merge_ended(std::size_t /*most*/) override {}
  std::vector<cow::ProcessCopies> take_ended() override { return {}; }

 private:
  int failing_;
  int samples_ = 0;
};

// For a process of its own: the signals that measuring takes are not given back.
[[noreturn]] void exit_as_measured(const MeasureOptions& options, int failing) {
  cow::OpenedBackend opened{std::make_unique<FailingBackend>(failing), ""};
  const Measured measured = measure_by(opened, options);
  const bool is_kept = measured.measurement && measured.measurement->duration_s >= failing;
  std::_Exit(is_kept ? measured.exit_status : kLost);
}

TEST(MeasureDeathTest, TheCommandsFailurePassesBeforeThatOfASample) {
  MeasureOptions options;
  options.command = {"sh", "-c", "exit 7"};
  EXPECT_EXIT(exit_as_measured(options, 1), ExitedWithCode(7), kWhy);
  options.command = {"true"};
  EXPECT_EXIT(exit_as_measured(options, 1), ExitedWithCode(kOwnError), kWhy);
}

TEST(MeasureDeathTest, WhatWasAttachedToIsReportedUpToTheSampleThatFailed) {
  MeasureOptions options;
  options.selection = Selection{Selection::By::pid, {::getppid()}, ""};
  EXPECT_EXIT(exit_as_measured(options, 2), ExitedWithCode(kOwnError), kWhy);
}

}  // namespace
}  // namespace cowshed::cowtop
