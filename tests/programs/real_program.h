#pragma once

#include <filesystem>
#include <gtest/gtest.h>
#include <optional>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include <cowshed/tests/programs/measured_run.h>
#include <cowshed/tests/support/setting.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/taskstats.h>

// What cowtop says of programs that were written elsewhere, against taskstats: what the kernel
// itself has counted of each process by its end, and of some between two requests.  All thresholds
// are its figures: of the same run, or of the same program that leaves one thing out.
namespace cowshed::test {

inline constexpr const char* kPython = "/usr/bin/python3";

// The number after "ready " in what a program printed; 0: there is none.
pid_t pid_of(const std::string& out);

// Tests of one program, which are skipped where it is not installed.
class RealProgram : public ::testing::Test {
 protected:
  // One copy in so many is sampled.  Seldom: then none is lost, however busy the machine is.
  static constexpr const char* kSeldom = "8";
  static constexpr const char* kEach = "1";

  explicit RealProgram(std::vector<std::string> needs) : needs_(std::move(needs)) {}
  void SetUp() override;
  void TearDown() override;

  // Of this test's folder.
  const std::filesystem::path& folder() const { return folder_; }
  std::string file(const std::string& name) const { return folder_ / name; }
  std::string write(const std::string& name, const std::string& text) const;

  // The arguments that start a command measured; finish() waits for its end.
  std::vector<std::string> cowtop(const std::vector<std::string>& command,
                                  const char* period) const;
  MeasuredRun finish(Subprocess& command);
  // From its start to its end.
  MeasuredRun measure(const std::vector<std::string>& command);

 private:
  std::vector<std::string> needs_;
  std::optional<Setting> delay_accounting_;
  std::optional<ExitAccounts> accounts_;
  std::filesystem::path folder_;
};

}  // namespace cowshed::test
