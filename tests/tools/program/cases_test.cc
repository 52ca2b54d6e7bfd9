#include <regex>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): setenv(3)

#include <cowshed/probes/support.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>

// Each case of tests/tools/cases/*.txt is a test: the file's name and the case's.
//   NAME=value             before the first case: an environment variable of all cases
//   [Name] WORD...         begins a case.  root: needs root; exact: needs the exact backend;
//                          backends: runs once for each, which BACKEND names
//   $ COMMAND              sh runs it in an empty folder; cowtop and the subjects are on PATH.
//                          `await TEXT FILE` waits until the file has the text.  `copy PROGRAM...`
//                          copies the program into the folder, where every user may run it.
//   ? N                    its exit status is N; without this line, 0
//   > TEXT    ! TEXT       its standard output, its standard error, has a line with the text.  *
//                          is anything, {A..B} a number from A to B.
//   >- TEXT   !- TEXT      it has no such line
//   >= TEXT   != TEXT      it has these lines alone; without a text, none
//   x COMMAND              cowtop refuses it: status 125, one line on standard error, nothing else
namespace cowshed::cowtop {
namespace {

struct Step {
  std::string command;
  int status = 0;
  std::vector<std::pair<std::string, std::string>> expected;  // "!-", text
};

struct Case {
  std::string name;
  std::set<std::string> words;
  std::vector<Step> steps;
  int line = 0;
};

struct CaseFile {
  std::string path;
  std::vector<std::pair<std::string, std::string>> environment;
  std::vector<Case> cases;
};

CaseFile read_cases(const std::filesystem::path& path) {
  CaseFile file{path.string(), {}, {}};
  std::ifstream stream(path);
  int number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++number;
    while (line.ends_with('\\')) {
      std::string more;
      std::getline(stream, more);
      ++number;
      line = line.substr(0, line.size() - 1) + more.substr(more.find_first_not_of(' '));
    }
    const std::string sign = line.substr(0, line.find(' '));
    const std::string text = sign.size() < line.size() ? line.substr(sign.size() + 1) : "";
    if (line.empty() || line.starts_with('#')) continue;
    if (line.starts_with('[')) {
      std::istringstream words(text);
      file.cases.push_back({sign.substr(1, sign.size() - 2), {}, {}, number});
      for (std::string word; words >> word;) file.cases.back().words.insert(word);
    } else if (file.cases.empty()) {
      file.environment.emplace_back(line.substr(0, line.find('=')),
                                    line.substr(line.find('=') + 1));
    } else if (sign == "$") {
      file.cases.back().steps.push_back({text, 0, {}});
    } else if (sign == "x") {
      file.cases.back().steps.push_back({text, 125, {{sign, ""}}});
    } else if (sign == "?") {
      file.cases.back().steps.back().status = std::stoi(text);
    } else {
      file.cases.back().steps.back().expected.emplace_back(sign, text);
    }
  }
  return file;
}

bool has_line(const std::string& output, const std::string& text) {
  static const std::regex written(R"(\\\{(\d+)\\\.\\\.(\d+)\\\})");
  std::string pattern;
  for (const char each : text) {
    if (each == '*') {
      pattern += ".*";
    } else {
      if (std::ispunct(static_cast<unsigned char>(each)) != 0) pattern += '\\';
      pattern += each;
    }
  }
  std::vector<std::pair<double, double>> ranges;
  for (std::smatch range; std::regex_search(pattern, range, written);) {
    ranges.emplace_back(std::stod(range[1]), std::stod(range[2]));
    pattern = range.prefix().str() + R"(([0-9.]+))" + range.suffix().str();
  }
  const std::regex wanted(pattern);
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    std::smatch found;
    if (!std::regex_search(line, found, wanted)) continue;
    bool is_within = true;
    for (std::size_t i = 0; i < ranges.size(); ++i) {
      const double value = std::stod(found[i + 1]);
      is_within = is_within && value >= ranges[i].first && value <= ranges[i].second;
    }
    if (is_within) return true;
  }
  return false;
}

void run_step(const Step& step, const std::string& folder) {
  SCOPED_TRACE(step.command);
  const std::string prelude =
      "trap 'trap \"\" TERM; kill 0' EXIT; "  // who is still there
      "await() { until grep -q -e \"$1\" \"$2\" 2>/dev/null; do sleep 0.05; done; }; "
      "copy() { chmod 755 .; for each; do cp \"$(command -v $each)\" .; done; }; ";
  const test::Finished done = test::run({"sh", "-c", prelude + step.command}, [&] {
    ::setpgid(0, 0);
    if (::chdir(folder.c_str()) != 0) ::_exit(126);
  });
  EXPECT_EQ(done.exit_status(), step.status) << done.out << done.err;
  std::map<char, std::string> whole;
  for (const auto& [sign, text] : step.expected) {
    const std::string& output = sign[0] == '>' ? done.out : done.err;
    if (sign == "x") {
      EXPECT_EQ(done.out, "");
      EXPECT_TRUE(done.err.starts_with("cowtop: ")) << done.err;
      EXPECT_EQ(std::ranges::count(done.err, '\n'), 1) << done.err;
    } else if (sign.ends_with('=')) {
      whole[sign[0]] += text.empty() ? "" : text + "\n";
    } else {
      EXPECT_EQ(has_line(output, text), !sign.ends_with('-')) << sign << " " << text << "\n"
                                                              << output;
    }
  }
  for (const auto& [sign, text] : whole) EXPECT_EQ(sign == '>' ? done.out : done.err, text);
}

class CaseTest : public ::testing::Test {
 public:
  CaseTest(const CaseFile& file, const Case& which, std::string backend)
      : file_(file), case_(which), backend_(std::move(backend)) {}

  void TestBody() override {
    if (case_.words.contains("root") && ::geteuid() != 0) GTEST_SKIP() << "needs root";
    const auto possible = probe_support();
    if ((case_.words.contains("exact") || backend_ == "tracepoint") && !possible)
      GTEST_SKIP() << possible.error().message;
    const auto folder_of = [](const std::string& program) {
      return std::filesystem::path(program).parent_path().string();
    };
    const std::string path = folder_of(COWTOP) + ":" + folder_of(COPY_SUBJECT) + ":";
    ::setenv("PATH", (path + ::getenv("PATH")).c_str(), 1);
    // The leak checker of a sanitized subject is a process of its own.
    ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    ::unsetenv("GITHUB_ACTIONS");
    ::setenv("BACKEND", backend_.c_str(), 1);
    for (const auto& [name, value] : file_.environment) ::setenv(name.c_str(), value.c_str(), 1);
    for (const Step& step : case_.steps) run_step(step, folder_ / "");
  }

 private:
  const CaseFile& file_;
  const Case& case_;
  std::string backend_;
  TestFolder folder_;
};

// Those that are there: in a virtual machine there are none.
const bool registered = [] {
  static std::vector<CaseFile> files;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(CASES, none))
    files.push_back(read_cases(entry.path()));
  for (const CaseFile& file : files) {
    const std::string suite = std::filesystem::path(file.path).stem();
    for (const Case& each : file.cases) {
      const bool is_for_each = each.words.contains("backends");
      for (const std::string backend : {"tracepoint", "pagemap"}) {
        const std::string name = each.name + (is_for_each ? "_" + backend : "");
        ::testing::RegisterTest(suite.c_str(), name.c_str(), nullptr, nullptr, file.path.c_str(),
                                each.line,
                                [&file, &each, backend, is_for_each]() -> ::testing::Test* {
                                  return new CaseTest(file, each, is_for_each ? backend : "auto");
                                });
        if (!is_for_each) break;
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace cowshed::cowtop
