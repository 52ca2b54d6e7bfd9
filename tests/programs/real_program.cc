#include <charconv>
#include <cmath>

#include <cowshed/tests/probes/subject.h>
#include <cowshed/tests/programs/real_program.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {

namespace fs = std::filesystem;

namespace {

// What chance may add to the share of a process's samples, or take from it.
double noise(const Json& process, double share) {
  constexpr double kDeviations = 5;
  const auto samples = process.at("samples").get<double>();
  const double p = std::clamp(share, 0.0, 1.0);
  return kDeviations * std::sqrt(std::max(p * (1 - p), 1 / samples) / samples);
}

std::string place(const Json& frame) {
  const std::string module = frame.at("module");
  std::string text = frame.at("function");
  if (text.empty()) text = "??";
  return text + " (" + module.substr(module.rfind('/') + 1) + ")";
}

std::vector<std::string> names(const Json& items, const char* field, std::size_t most) {
  std::vector<std::string> names;
  for (const Json& each : items)
    if (names.size() < most) names.push_back(each.at(field));
  return names;
}

// What an assertion that failed has left running has come to be this process's child.
void end_orphans() {
  for (bool any = true; any;) {
    any = false;
    for (const auto& task : fs::directory_iterator("/proc/self/task")) {
      std::ifstream children(task.path() / "children");
      for (pid_t child = 0; children >> child;) {
        any = true;
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
      }
    }
  }
}

}  // namespace

const Json& MeasuredRun::process(pid_t pid) const {
  static const Json none;
  if (!report.is_object()) return none;
  for (const Json& process : report.at("processes"))
    if (process.at("pid") == pid) return process;
  return none;
}

pid_t MeasuredRun::child() const {
  pid_t pid = 0;
  if (!report.is_object()) return pid;
  for (const Json& process : report.at("processes"))
    if (process.at("role") != "root") pid = process.at("pid");
  return pid;
}

double MeasuredRun::copies(pid_t pid) const {
  const auto found = independent.find(pid);
  return found == independent.end() ? 0 : static_cast<double>(found->second);
}

// taskstats counts anonymous copies, writes over the zero page, and those copies of files' pages
// that were read before.
void expect_agreement(const MeasuredRun& run) {
  // See ExitAccounts.
  constexpr std::int64_t kAfterItsAccount = 2;
  ASSERT_TRUE(run.report.is_object());
  for (const Json& process : run.report.at("processes")) {
    const auto found = run.independent.find(process.at("pid"));
    ASSERT_NE(found, run.independent.end()) << "taskstats says nothing of " << process.at("pid");
    const auto independent = static_cast<std::int64_t>(found->second);
    const auto least = process.at("copied_anon_pages").get<std::int64_t>() +
                       process.at("zero_page_writes").get<std::int64_t>();
    EXPECT_LE(least, independent + most_unseen(found->second) + kAfterItsAccount) << process;
    // The command is measured from a moment after its fork, which a sanitizer fills.
    if (process.at("role") == "root") continue;
    EXPECT_GE(least + process.at("copied_file_pages").get<std::int64_t>(), independent) << process;
  }
}

double share(const Json& process, const std::string& pattern) {
  for (const Json& each : process.at("patterns"))
    if (each.at("pattern") == pattern) return each.at("share");
  return 0;
}

void expect_share(const Json& process, const std::string& pattern, double least, double most) {
  const double found = share(process, pattern);
  EXPECT_GE(found, least - noise(process, least)) << pattern << ' ' << process.at("patterns");
  EXPECT_LE(found, most + noise(process, most)) << pattern << ' ' << process.at("patterns");
}

void expect_copies(const Json& site, const Json& process, double least, double most) {
  const double all = process.at("copied_pages");
  const double found = site.at("estimated_copies");
  EXPECT_GE(found, least - all * noise(process, least / all)) << site;
  EXPECT_LE(found, most + all * noise(process, most / all)) << site;
}

bool calls(const Json& site, const std::string& function) {
  const Json& stack = site.at("stack");
  return std::any_of(stack.begin(), stack.end(), [&](const Json& frame) {
    return frame.at("function").get<std::string>() == function;
  });
}

std::vector<std::string> places(const Json& process, std::size_t most) {
  std::vector<std::string> places;
  for (const Json& site : process.at("sites")) {
    if (places.size() == most) break;
    const Json& stack = site.at("stack");
    const auto inner = static_cast<std::ptrdiff_t>(site.at("frames").size()) - 1;
    const auto named = std::find_if(stack.begin() + inner, stack.end(), [](const Json& frame) {
      return !frame.at("function").get<std::string>().empty();
    });
    places.push_back(place(named == stack.end() ? *(stack.begin() + inner) : *named));
  }
  return places;
}

std::vector<std::string> mappings(const Json& process, std::size_t most) {
  return names(process.at("mappings"), "name", most);
}

std::vector<std::string> patterns(const Json& process) {
  return names(process.at("patterns"), "pattern", SIZE_MAX);
}

pid_t pid_of(const std::string& out) {
  constexpr std::string_view kReady = "ready ";
  const auto at = out.find(kReady);
  pid_t pid = 0;
  if (at != std::string::npos)
    std::from_chars(out.data() + at + kReady.size(), out.data() + out.size(), pid);
  return pid;
}

void RealProgram::SetUp() {
  for (const std::string& program : needs_)
    if (!fs::exists(program)) GTEST_SKIP() << "no " << program;
  if (const std::string reason = cannot_probe(); !reason.empty()) GTEST_SKIP() << reason;
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to ask taskstats";
  delay_accounting_.emplace("/proc/sys/kernel/task_delayacct", "1");
  if (!wpcopy_count(::getpid())) GTEST_SKIP() << "this kernel's taskstats does not count copies";
  accounts_.emplace();
  ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

void RealProgram::TearDown() {
  end_orphans();
  accounts_.reset();
  delay_accounting_.reset();
}

std::vector<std::string> RealProgram::cowtop(const std::vector<std::string>& command,
                                             const char* period) const {
  std::vector<std::string> arguments = {COWTOP, "--json", "--sites",           "-c",
                                        period, "-o",     file("report.json"), "--"};
  arguments.insert(arguments.end(), command.begin(), command.end());
  return arguments;
}

MeasuredRun RealProgram::finish(Subprocess& command) {
  MeasuredRun run;
  const Finished finished = command.finish();
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  std::ifstream report(file("report.json"));
  run.report = Json::parse(report, nullptr, false);
  run.independent = accounts_->wpcopy_counts();
  expect_agreement(run);
  return run;
}

MeasuredRun RealProgram::measure(const std::vector<std::string>& command) {
  Subprocess started(cowtop(command, kSeldom));
  return finish(started);
}

}  // namespace cowshed::test
