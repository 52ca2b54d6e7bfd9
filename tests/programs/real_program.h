#pragma once

#include <nlohmann/json.hpp>

#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/setting.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/taskstats.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {

// What cowtop says of a program, and the questions that the tests have about that.
using Json = nlohmann::json;

struct MeasuredRun {
  Json report;                                 // cowtop's
  std::map<pid_t, std::uint64_t> independent;  // copies, by taskstats, of each process

  const Json& process(pid_t pid) const;
  pid_t child() const;  // the last that the command itself forked
  double copies(pid_t pid) const;
};

// Each process of the run, by cowtop and by the kernel.
void expect_agreement(const MeasuredRun& run);

double share(const Json& process, const std::string& pattern);
// But for what chance does to the share of a process's samples.
void expect_share(const Json& process, const std::string& pattern, double least, double most);
// The code site has copied about what the kernel counted.
void expect_copies(const Json& site, const Json& process, double least, double most);

// Whether the function is on the site's stack.
bool calls(const Json& site, const std::string& function);
// Those with most copies, first.  Of a code site "function (module)", of its place or, where that
// has no name, the nearest caller's that has one; "?? (module)" where none has.
std::vector<std::string> places(const Json& process, std::size_t most);
std::vector<std::string> mappings(const Json& process, std::size_t most = SIZE_MAX);
std::vector<std::string> patterns(const Json& process);

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
  const std::filesystem::path& folder() const { return folder_.path(); }
  std::string file(const std::string& name) const { return folder_ / name; }
  std::string write(const std::string& name, const std::string& text) const {
    return folder_.write(name, text);
  }

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
  Folder folder_;
};

}  // namespace cowshed::test
