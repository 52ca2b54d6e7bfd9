#include <poll.h>

#include <cowshed/cow/code_reader/python_lines.h>
#include <cowshed/cow/command.h>
#include <cowshed/cow/profile/address_spaces.h>
#include <cowshed/probes/probe.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/needs_probes.h>

// The Python lines and objects of samples, on a program whose copies are known.

namespace cowshed::test {
namespace {

int line_at(const PythonCode& code, std::uint32_t instruction) {
  const auto lines = cow::parse_python_lines(code.first_line, code.lines);
  return lines.at(cow::line_index(lines, instruction)).line;
}

// A child of the corpus.
struct Child {
  std::string function;
  int line = 0;
  std::string type;
  std::uint64_t copied_pages = 0;
  std::vector<CopySample> samples;
};

// Runs programs with a probe, which reads the interpreters that it finds.
class SampledRun {
 public:
  explicit SampledRun(const SamplingOptions& sampling) : probe_(Probe::load(sampling).value()) {}

  void run(const std::vector<std::string>& command) {
    auto child = cow::Command::fork(command).value();
    EXPECT_TRUE(probe_.track_command(child.pid()));
    EXPECT_TRUE(child.release());
    pollfd ended = {.fd = child.pidfd(), .events = POLLIN, .revents = 0};
    while (poll(&ended, 1, 5) == 0) take();
    EXPECT_EQ(child.wait().value(), 0);
    take();
  }

  const std::vector<CopySample>& samples(int pid) { return samples_[pid]; }
  std::uint64_t copied_pages(int pid) { return copied_pages_[pid]; }
  std::size_t interpreters() const { return interpreters_; }
  std::uint64_t lost() const { return probe_.sample_counts().value().lost; }

 private:
  void take() {
    auto samples = probe_.take_samples().value();
    const Snapshot snapshot = probe_.snapshot().value();
    for (const ProcessCounts& process : snapshot.processes) {
      spaces_.update(process, snapshot.taken_ns);
      copied_pages_[process.pid] = process.copied_pages();
    }
    for (CopySample& sample : samples) {
      if (sample.copy_class == CopyClass::fresh) continue;
      const cow::AddressSpace* space = spaces_.at(sample);
      if (space != nullptr && sample.object_type_name_at != 0 && sample.object_type.empty())
        sample.object_type = space->unwinder->name_at(sample.object_type_name_at);
      samples_[sample.pid].push_back(std::move(sample));
    }
  }

  Probe probe_;
  cow::BinaryCache binaries_{cow::ProcFiles()};
  std::size_t interpreters_ = 0;
  cow::AddressSpaces spaces_{cow::ProcFiles(), binaries_,
                             [this](std::uint64_t image, const PythonLayout& layout) {
                               EXPECT_TRUE(probe_.add_interpreter(image, layout));
                               ++interpreters_;
                             }};
  std::map<int, std::uint64_t> copied_pages_;  // by PID
  std::map<int, std::vector<CopySample>> samples_;
};

class PythonSamples : public NeedsProbes, public testing::WithParamInterface<std::string> {
 protected:
  // Returns the children in the order of their forks.
  static std::vector<Child> run_corpus(const SamplingOptions& sampling) {
    SampledRun run(sampling);
    const Folder folder;
    const std::string list = folder / "children";
    run.run({GetParam(), "-S", "-E", PYTHON_CORPUS, list});
    if (sampling.period > 1) EXPECT_EQ(run.lost(), 0U);
    std::vector<Child> children;
    std::ifstream lines(list);
    int pid = 0;
    for (Child child; lines >> pid >> child.function >> child.line >> child.type;) {
      children.push_back(child);
      children.back().copied_pages = run.copied_pages(pid);
      children.back().samples = run.samples(pid);
    }
    return children;
  }
};

bool is_in(const CopySample& sample, const std::string& function) {
  return sample.python.empty() || std::ranges::any_of(sample.python, [&](const PythonFrame& frame) {
           return frame.code != nullptr && frame.code->function.starts_with(function);
         });
}

std::string where(const CopySample& sample) {
  if (sample.python.empty()) return "no frame";
  const PythonFrame& frame = sample.python.front();
  if (frame.code == nullptr) return "unreadable code";
  return std::filesystem::path(frame.code->file).filename().string() + ":" +
         std::to_string(line_at(*frame.code, frame.instruction));
}

std::string hot_line(const Child& child) {
  return "python_corpus.py:" + std::to_string(child.line);
}

// The samples of what a child did in the function of its case.
struct Named {
  double all = 0;
  double lines = 0;  // with the right line
  double types = 0;
  std::map<std::string, int> others;
};

Named named(const Child& child) {
  Named named;
  const std::string line = hot_line(child);
  for (const CopySample& sample : child.samples) {
    if (!is_in(sample, child.function)) continue;
    ++named.all;
    if (where(sample) == line) ++named.lines;
    const std::string type = sample.object_type.empty() ? "-" : sample.object_type;
    if (type == child.type && sample.object_offset == 0) ++named.types;
    if (where(sample) != line || type != child.type) ++named.others[where(sample) + " " + type];
  }
  return named;
}

constexpr std::size_t kCases = 20;

TEST_P(PythonSamples, NameTheLineAndTheTypeOfEachCopy) {
  const auto children = run_corpus({.period = 4, .buffer_bytes = 32 << 20});
  ASSERT_THAT(children, SizeIs(kCases));
  for (const Child& child : children) {
    const Named found = named(child);
    const auto nameless = std::ranges::count_if(child.samples, [](const CopySample& sample) {
      return sample.object_type_name_at != 0 && sample.object_type.empty();
    });
    EXPECT_LE(static_cast<double>(nameless), 0.01 * found.all) << child.function;
    EXPECT_GT(found.all, 100) << child.function;
    EXPECT_GE(found.lines, 0.95 * found.all)
        << child.function << testing::PrintToString(found.others);
    EXPECT_GE(found.types, 0.95 * found.all) << child.type << testing::PrintToString(found.others);
  }
}

// Later versions make more kinds of call without C code.
TEST_P(PythonSamples, AFrameThatCCodeCalledIsAnEntry) {
  const std::map<std::string, bool> is_entry = {{"plain", false}, {"Reader.read", false},
                                                {"deep", false},  {"sort_key", true},
                                                {"mapped", true}, {"substituted", true}};
  for (const Child& child : run_corpus({.period = 16, .buffer_bytes = 32 << 20})) {
    for (const CopySample& sample : child.samples) {
      if (where(sample) != hot_line(child)) continue;
      const bool is_caller = sample.python.front().code->function == child.function;
      if (const auto known = is_entry.find(child.function);
          known != is_entry.end() && !(known->second && is_caller))
        ASSERT_EQ(sample.python.front().is_entry, known->second) << child.function;
      for (const PythonFrame& frame : sample.python) {
        ASSERT_NE(frame.code, nullptr) << child.function;
        ASSERT_THAT(frame.code->file, testing::AnyOf(EndsWith(".py"), StartsWith("<frozen ")));
      }
      ASSERT_EQ(sample.is_python_cut, child.function == "deep") << child.function;
      if (sample.is_python_cut || child.function == "thread") continue;
      ASSERT_TRUE(sample.python.back().is_entry) << child.function;
      ASSERT_EQ(sample.python.back().code->function, "<module>");
    }
  }
}

TEST_P(PythonSamples, CopyNothing) {
  const auto without = run_corpus({});
  const auto with = run_corpus({.period = 1, .buffer_bytes = 64 << 20});
  ASSERT_THAT(with, SizeIs(without.size()));
  for (std::size_t i = 0; i < with.size(); ++i) {
    const auto pages = static_cast<double>(without[i].copied_pages);
    EXPECT_NEAR(static_cast<double>(with[i].copied_pages), pages, 0.01 * pages + 20)
        << with[i].function;
  }
}

class ForgedPython : public NeedsProbes {};

// Each list that the program forges is a ring, and no text of it has an end.
TEST_F(ForgedPython, HasFramesWithinTheLimitsAndCopiesNothing) {
  constexpr std::uint64_t kPages = 2000;
  const Folder folder;
  const std::string pid_file = folder / "pid";
  const auto child_of = [&](SampledRun& run) {
    run.run({"/bin/sh", "-c",
             std::string(FORGED_PYTHON) + " " + std::to_string(kPages) + " > " + pid_file});
    return std::stoi(contents_of(pid_file));
  };
  SampledRun with({.period = 1, .buffer_bytes = 64 << 20});
  const int child = child_of(with);
  EXPECT_EQ(with.interpreters(), 1U);
  std::size_t in_frames = 0;
  for (const CopySample& sample : with.samples(child)) {
    if (sample.python.empty()) continue;
    ++in_frames;
    EXPECT_THAT(sample.python, SizeIs(64));
    EXPECT_TRUE(sample.is_python_cut);
    if (!sample.object_type.empty())
      EXPECT_THAT(sample.object_type, AllOf(SizeIs(67), EndsWith("..."))) << "without an end";
    const auto& code = sample.python.front().code;
    ASSERT_NE(code, nullptr);
    EXPECT_LE(code->function.size() + code->file.size(), 1024U);
    EXPECT_LE(code->lines.size(), 16384U);
  }
  EXPECT_GE(in_frames, kPages);
  SampledRun without({});
  const int other = child_of(without);
  EXPECT_NEAR(static_cast<double>(with.copied_pages(child)),
              static_cast<double>(without.copied_pages(other)), 5);
}

std::vector<std::string> pythons() {
  std::vector<std::string> paths;
  std::istringstream list(PYTHONS);
  for (std::string path; std::getline(list, path, ':');) paths.push_back(path);
  return paths;
}

INSTANTIATE_TEST_SUITE_P(Installed, PythonSamples, testing::ValuesIn(pythons()));

}  // namespace
}  // namespace cowshed::test
