#include <cowshed/tests/support/failure.h>
#include <cowshed/tests/support/scale.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/recording/measurement_file.h>
#include <cowshed/tools/cowtop/recording/recorder.h>
#include <cowshed/tools/cowtop/recording/recording.h>

namespace cowshed::cowtop {
namespace {

class RecordingTest : public ::testing::Test {
 protected:
  Recorder start(const MeasureOptions& options = {}) const {
    return Recorder::start(OutputFile::open(path_).value(), options).value();
  }
  void record() const {
    MeasureOptions options;
    options.command = {"server", "--workers", "1"};
    ASSERT_TRUE(start(options).end(full_measurement(), 3));
  }
  void record_interval() const { ASSERT_TRUE(start().append(full_measurement())); }

  // Of these lines after the first.
  Recording recording_of(const std::vector<std::string>& lines) const {
    ZstdLineEncoder encoder;
    std::string file = encoder.encode(R"({"schema": "cowshed.recording/1"})");
    for (const std::string& line : lines) file += encoder.encode(line);
    write_file(path_, file);
    return Recording::open(path_).value();
  }

  // Of all that can be read.
  static std::optional<cow::Measurement> last(Recording& recording) {
    bool any = false;
    while (recording.next().value_or(false)) any = true;
    if (!any) return std::nullopt;
    return recording.measurement().value();
  }

  Error error_of(const std::string& contents) {
    write_file(path_, contents);
    return failure_of(Recording::open(path_));
  }

  TestFolder folder_;
  std::string path_ = folder_ / "recording";
};

TEST(Recorder, AppendsAtLeastEveryOtherSecond) {
  using std::chrono::milliseconds;
  constexpr std::chrono::steady_clock::time_point kBegin{};
  const auto after = [&](int took_ms) {
    return next_append(kBegin, kBegin + milliseconds(took_ms)) - kBegin;
  };
  EXPECT_EQ(after(0), milliseconds(1000));
  EXPECT_EQ(after(2), milliseconds(1000));
  EXPECT_EQ(after(4), milliseconds(1600));
  EXPECT_EQ(after(20), milliseconds(2000));
  EXPECT_EQ(after(3000), milliseconds(6000));
}

TEST_F(RecordingTest, KeepsEveryField) {
  record();
  Recording recording = Recording::open(path_).value();
  EXPECT_THAT(recording.header().command, ElementsAre("server", "--workers", "1"));
  const auto kept = last(recording);
  ASSERT_TRUE(kept);
  EXPECT_EQ(json_report(*kept), json_report(full_measurement()));
  EXPECT_TRUE(kept->memory_cgroup == full_measurement().memory_cgroup);
  EXPECT_TRUE(kept->processes == full_measurement().processes);
  EXPECT_TRUE(recording.ended());
  EXPECT_EQ(recording.exit_status(), 3);
  EXPECT_EQ(recording.problem(), "");
}

TEST_F(RecordingTest, SaysWhichProcessesWereAskedFor) {
  MeasureOptions options;
  options.selection = Selection{Selection::By::pid, {7, 9}, ""};
  start(options);
  EXPECT_EQ(Recording::open(path_)->header().selection, "-p 7,9");
  EXPECT_FALSE(Recording::open(path_)->header().attached_pid);
  // As cowtop wrote it when it took one PID.
  write_file(path_, ZstdLineEncoder().encode(
                        R"({"schema": "cowshed.recording/1", "command": [], "attached_pid": 7})"));
  EXPECT_EQ(Recording::open(path_)->header().attached_pid, 7);
  EXPECT_EQ(Recording::open(path_)->header().selection, "");
}

TEST_F(RecordingTest, FollowsWhatChanges) {
  Recorder recorder = start();
  cow::Measurement measurement = full_measurement();
  const cow::ProcessCopies late = measurement.processes[1];
  measurement.processes.resize(1);
  ASSERT_TRUE(recorder.append(measurement));
  const cow::Measurement first = measurement;
  measurement.processes.push_back(late);
  measurement.processes[0].copied_anon_pages = 77;
  measurement.processes[0].exit_status = 1;
  ASSERT_TRUE(recorder.append(measurement));
  const cow::Measurement second = measurement;
  measurement.processes[1].sampled->sites.clear();
  measurement.processes[1].objects.reset();
  measurement.sampled.reset();
  ASSERT_TRUE(recorder.end(measurement, 0));

  Recording recording = Recording::open(path_).value();
  for (const cow::Measurement& each : {first, second, measurement}) {
    EXPECT_FALSE(recording.ended());
    ASSERT_TRUE(recording.next().value());
    EXPECT_EQ(json_report(recording.measurement().value()), json_report(each));
  }
  EXPECT_TRUE(recording.ended());
  EXPECT_FALSE(recording.next().value());
}

TEST_F(RecordingTest, CodeStaysWhileOnlyCountsAreWritten) {
  Recorder recorder = start();
  cow::Measurement measurement = full_measurement();
  ASSERT_TRUE(recorder.append(measurement));
  measurement.processes[0].copied_anon_pages = 77;
  cow::Measurement counts = measurement;
  counts.sampled.reset();
  counts.new_memory.reset();
  for (cow::ProcessCopies& process : counts.processes) {
    process.sampled.reset();
    process.patterns.reset();
  }
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(recorder.append_counts(counts));
  Recording cut = Recording::open(path_).value();
  EXPECT_EQ(json_report(last(cut).value()), json_report(measurement));
  measurement.processes[1].sampled->sites.clear();
  ASSERT_TRUE(recorder.end(measurement, 0));
  Recording ended = Recording::open(path_).value();
  EXPECT_EQ(json_report(last(ended).value()), json_report(measurement));
}

// As processes that ended are summed: the rows of some go, whichever they are, and others come.
TEST_F(RecordingTest, FollowsRowsThatGo) {
  Recorder recorder = start();
  cow::Measurement measurement = full_measurement();
  std::vector<std::string> reports;
  std::minstd_rand random(1);
  constexpr std::size_t kIntervals = 50;
  for (pid_t pid = 1000; reports.size() < kIntervals;) {
    std::erase_if(measurement.processes, [&](const auto&) { return random() % 3 == 0; });
    for (cow::ProcessCopies& process : measurement.processes)
      if (random() % 3 == 0) process.processes += 5;
    for (auto more = random() % 10; more > 0; --more) {
      cow::ProcessCopies process = full_measurement().processes[0];
      process.pid = pid++;
      // Not only at the end: where it was found late, or belongs to another.
      const auto place = random() % (measurement.processes.size() + 1);
      measurement.processes.insert(measurement.processes.begin() + static_cast<long>(place),
                                   process);
    }
    if (random() % 10 == 0) std::ranges::reverse(measurement.processes);
    reports.push_back(json_report(measurement));
    ASSERT_TRUE(recorder.append(measurement));
  }
  Recording recording = Recording::open(path_).value();
  for (const std::string& each : reports) {
    ASSERT_TRUE(recording.next().value());
    ASSERT_EQ(json_report(recording.measurement().value()), each);
  }
}

TEST_F(RecordingTest, TheNextIntervalMakesUpForOneThatTheDiskHadNoSpaceFor) {
  Recorder recorder = start();
  cow::Measurement measurement = full_measurement();
  ASSERT_TRUE(recorder.append(measurement));
  const std::string before = contents_of(path_);
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit full{before.size() + 10, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
  measurement.processes[0].copied_anon_pages = 77;
  const auto refused = recorder.append(measurement);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("cannot write to " + path_));
  EXPECT_EQ(contents_of(path_), before) << "no part of it";
  measurement.processes[1].copied_anon_pages = 78;
  ASSERT_TRUE(recorder.end(measurement, 0));

  Recording recording = Recording::open(path_).value();
  const auto kept = last(recording);
  ASSERT_TRUE(kept);
  EXPECT_TRUE(recording.ended());
  EXPECT_EQ(json_report(*kept), json_report(measurement));
}

TEST_F(RecordingTest, WhatIsWrittenLessOftenIsShort) {
  Recorder recorder = start();
  cow::Measurement measurement = full_measurement();
  ASSERT_TRUE(recorder.append(measurement));
  const std::size_t before = contents_of(path_).size();
  measurement.duration_s += 1;
  ASSERT_TRUE(recorder.append(measurement));
  EXPECT_LT(contents_of(path_).size() - before, before / 4) << "only what has changed";
}

// As after a crash of the machine: whatever is there of the file, what came before is read.
TEST_F(RecordingTest, CutAnywhere) {
  Recorder recorder = start();
  std::vector<std::size_t> ends = {contents_of(path_).size()};
  cow::Measurement measurement = full_measurement();
  for (int i = 0; i < 3; ++i) {
    measurement.processes[0].copied_anon_pages = static_cast<std::uint64_t>(100 + i);
    ASSERT_TRUE(i < 2 ? recorder.append(measurement) : recorder.end(measurement, 0));
    ends.push_back(contents_of(path_).size());
  }
  const std::string whole = contents_of(path_);
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    SCOPED_TRACE(size);
    write_file(path_, whole.substr(0, size));
    auto recording = Recording::open(path_);
    ASSERT_EQ(recording.has_value(), size >= ends[0]);
    if (!recording) {
      EXPECT_EQ(recording.error().code, ErrorCode::bad_recording);
      continue;
    }
    const auto intervals = static_cast<std::uint64_t>(
        std::count_if(ends.begin() + 1, ends.end(), [&](std::size_t end) { return end <= size; }));
    const auto kept = last(*recording);
    ASSERT_EQ(kept.has_value(), intervals > 0);
    if (kept) EXPECT_EQ(kept->processes[0].copied_anon_pages, 99 + intervals);
    EXPECT_EQ(recording->ended(), intervals == 3);
    const bool at_an_end = std::ranges::find(ends, size) != ends.end();
    EXPECT_EQ(recording->problem(), at_an_end ? "" : "ends within an interval");
  }
}

// As cat(1) makes of two: the first is read, and it is said that there is more.
TEST_F(RecordingTest, WhatFollowsItsEnd) {
  record();
  const std::string whole = contents_of(path_);
  const auto problem_of = [&](const std::string& contents, bool ended) {
    write_file(path_, contents);
    Recording recording = Recording::open(path_).value();
    const auto kept = last(recording);
    EXPECT_TRUE(kept && json_report(*kept) == json_report(full_measurement()));
    EXPECT_EQ(recording.ended(), ended);
    EXPECT_EQ(recording.is_whole(), recording.problem().empty());
    return recording.problem();
  };
  constexpr const char* kAnother =
      "is followed by another recording, of which nothing is read (keep each in a file of its own)";
  constexpr const char* kOther = "goes on behind its end with what is no recording of cowtop's";
  EXPECT_EQ(problem_of(whole, true), "");
  EXPECT_EQ(problem_of(whole + whole, true), kAnother);
  EXPECT_EQ(problem_of(whole + whole.substr(0, whole.size() - 1), true), kAnother);
  EXPECT_EQ(problem_of(whole + whole.substr(0, 9), true), kOther);
  EXPECT_EQ(problem_of(whole + "text", true), kOther);
  for (const char* line : {"7", "{", "{}", R"({"patch": []})", R"({"schema": "x/1"})"})
    EXPECT_EQ(problem_of(whole + ZstdLineEncoder().encode(line), true), kOther) << line;

  record_interval();
  EXPECT_EQ(problem_of(contents_of(path_) + whole, false),
            std::string("has no end, and ") + kAnother);
}

// Never wrong figures, never a crash: the beginning, or an error.
TEST_F(RecordingTest, ABitFlippedInEachByte) {
  record();
  const std::string whole = contents_of(path_);
  const std::string expected = json_report(full_measurement());
  for (std::size_t byte = 0; byte < whole.size(); ++byte) {
    const std::size_t bit = byte * 8 + byte % 8;
    std::string damaged = whole;
    damaged[byte] = static_cast<char>(damaged[byte] ^ (1 << byte % 8));
    write_file(path_, damaged);
    auto recording = Recording::open(path_);
    if (!recording) continue;
    const auto kept = last(*recording);
    if (kept) EXPECT_EQ(json_report(*kept), expected) << bit;
    if (!kept) EXPECT_NE(recording->problem(), "") << bit;
  }
}

TEST_F(RecordingTest, WhatIsNone) {
  EXPECT_THAT(error_of("").message, HasSubstr("is empty"));
  EXPECT_THAT(error_of("text").message, HasSubstr("is no recording"));
  ZstdLineEncoder encoder;
  for (const char* line : {"", "{", "[]", "7", "{}", R"({"schema": 7})", R"({"schema": "x/1"})"}) {
    SCOPED_TRACE(line);
    const Error error = error_of(encoder.encode(line));
    EXPECT_EQ(error.code, ErrorCode::bad_recording);
    EXPECT_THAT(error.message, HasSubstr(path_));
  }
  EXPECT_THAT(failure_of(Recording::open("/")).message, HasSubstr("Is a directory"));
  const char* newer = R"({"schema": "cowshed.recording/2", "cowtop": "9.9"})";
  EXPECT_THAT(error_of(encoder.encode(newer)).message,
              HasSubstr("cowshed.recording/2 by cowtop 9.9"));
}

// A right checksum does not make it right.
TEST_F(RecordingTest, PatchesThatDoNotFit) {
  for (const char* line : {"{}", "7", R"({"patch": 7})", R"({"patch": [{"op": "add"}]})",
                           R"({"patch": [{"op": "add", "path": "/processes/7", "value": {}}]})",
                           R"({"patch": [{"op": "remove", "path": "/x"}]})",
                           R"({"patch": [{"op": "remove", "path": ""}]})",
                           R"({"patch": [{"op": "remove", "path": "/processes/-"}]})",
                           R"({"patch": [{"op": "add", "path": "/processes/01", "value": {}}]})",
                           R"({"patch": [{"op": "add", "path": "/processes/x", "value": {}}]})",
                           R"({"patch": [{"op": "add", "path": "/x/y", "value": {}}]})",
                           R"({"patch": [{"op": "copy", "from": "", "path": "/x"}]})",
                           R"({"patch": [{"op": "replace", "path": "processes", "value": []}]})"}) {
    SCOPED_TRACE(line);
    Recording recording = recording_of({line});
    EXPECT_FALSE(recording.next().value());
    EXPECT_THAT(recording.problem(), HasSubstr("is damaged"));
    EXPECT_THAT(recording.problem(), Not(HasSubstr("json.exception"))) << "a library's words";
  }
}

TEST_F(RecordingTest, WhatFitsInPartIsNoMeasurement) {
  record_interval();
  write_file(path_, contents_of(path_) + ZstdLineEncoder().encode(R"({"patch": [
      {"op": "replace", "path": "/duration_s", "value": 99}, {"op": "remove", "path": "/x"}]})"));
  Recording recording = Recording::open(path_).value();
  EXPECT_EQ(failure_of(last_measurement(recording, path_)).message,
            path_ + ": is damaged: an interval does not fit what came before");
}

TEST_F(RecordingTest, ManyDeepStacksThatAreAllAlike) {
  auto measurement = full_measurement();
  auto process = measurement.processes.at(1);
  auto& site = process.sampled.value().sites.at(0);
  site.stack = std::vector<cow::Frame>(32, site.stack.front());
  process.sampled->sites.assign(15, site);
  measurement.processes.clear();
  constexpr int kProcesses = test::sized(500, 100);
  for (int i = 0; i < kProcesses; ++i) {
    measurement.processes.push_back(process);
    measurement.processes.back().pid = 1000 + i;
  }
  ASSERT_TRUE(start().end(measurement, 0));
  Recording recording = Recording::open(path_).value();
  const auto read = last(recording);
  EXPECT_EQ(recording.problem(), "");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->processes.size(), std::size_t{kProcesses});
}

std::string many_of(const std::string& value, std::size_t values) {
  std::string text = value;
  for (std::size_t i = 1; i < values; ++i) text += "," + value;
  return text;
}

TEST_F(RecordingTest, NoPaddingBuysMemory) {
  std::string padding;
  std::mt19937 random(1);
  for (int i = 0; i < 1 << 20; ++i) padding += static_cast<char>('a' + random() % 26);
  const std::string tail = R"("value": [)" + many_of("{}", 2'200'000) + "]";
  ZstdLineEncoder encoder;
  write_file(
      path_,
      encoder.encode(R"({"schema": "cowshed.recording/1", "command": [")" + padding + "\"]}") +
          encoder.encode(R"({"patch": [{"op": "add", "path": "/x", )" + tail + "}]}"));
  Recording recording = Recording::open(path_).value();
  EXPECT_FALSE(recording.next().value());
  EXPECT_THAT(recording.problem(), HasSubstr("it would take more than 2 GiB"));
  write_file(path_, R"({"schema": "cowshed.run/2", )" + tail + "}");
  EXPECT_THAT(failure_of(read_measurement(path_)).message,
              HasSubstr("it would take more than 2 GiB"));
}

TEST_F(RecordingTest, ObjectsWithManyFieldsAreRefused) {
  std::string fields = "{";
  for (int i = 0; i < 300; ++i) fields += (i == 0 ? "\"f" : ", \"f") + std::to_string(i) + "\": 0";
  Recording recording =
      recording_of({R"({"patch": [{"op": "add", "path": "/x", "value": )" + fields + "}}]}"});
  EXPECT_FALSE(recording.next().value());
  EXPECT_THAT(recording.problem(), HasSubstr("more fields than any"));
  std::string operations;
  for (int i = 0; i < 300; ++i)
    operations += (i == 0 ? "" : ", ") +
                  (R"({"op": "add", "value": 0, "path": "/f)" + std::to_string(i) + "\"}");
  Recording one_by_one = recording_of({R"({"patch": [)" + operations + "]}"});
  EXPECT_FALSE(one_by_one.next().value());
  EXPECT_THAT(one_by_one.problem(), HasSubstr("more fields than any"));
  write_file(path_, R"({"schema": "cowshed.run/2", "x": )" + fields + "}}");
  EXPECT_THAT(failure_of(read_measurement(path_)).message, HasSubstr("more fields than any"));
}

TEST_F(RecordingTest, PatchesOfArrays) {
  Recording recording = recording_of({R"({"patch": [{"op": "add", "path": "/a", "value": [1, 2]},
                     {"op": "add", "path": "/a/-", "value": 4},
                     {"op": "add", "path": "/a/3", "value": 5},
                     {"op": "add", "path": "/a/2", "value": 3},
                     {"op": "replace", "path": "/a/0", "value": 0},
                     {"op": "remove", "path": "/a/1"}]})"});
  EXPECT_TRUE(recording.next().value()) << recording.problem();
  EXPECT_EQ(recording.document().at("a").dump(), "[0,3,4,5]");
}

TEST_F(RecordingTest, DeeperThanAny) {
  const auto problem_of = [&](const std::string& path, std::size_t depth) {
    Recording recording =
        recording_of({R"({"patch": [{"op": "add", "path": ")" + path + R"(", "value": )" +
                      std::string(depth, '[') + std::string(depth, ']') + "}]}"});
    EXPECT_FALSE(recording.next().value());
    return recording.problem();
  };
  EXPECT_THAT(problem_of("/x", 200'000), HasSubstr("deeper than any"));
  std::string path;
  for (int i = 0; i < 33; ++i) path += "/x";
  EXPECT_THAT(problem_of(path, 1), HasSubstr("a path in a patch is deeper than any"));
}

TEST_F(RecordingTest, FieldsThatAreNotAsTheyShouldBe) {
  const auto measured = [&](const std::string& operation) {
    Recording recording = recording_of(
        {R"({"patch": [{"op": "add", "path": "/schema", "value": "cowshed.run/2"}, {"op": )" +
         operation + "}]}"});
    EXPECT_TRUE(recording.next().value()) << recording.problem();
    const auto measurement = recording.measurement();
    return measurement ? std::string("taken") : measurement.error().message;
  };
  const auto process = [&](const std::string& value) {
    return measured(R"("add", "path": "/processes/-", "value": )" + value);
  };
  EXPECT_EQ(process(R"({"pid": 7})"), "taken");
  EXPECT_EQ(process(R"({"pid": "7"})"), "/processes/0/pid: is not a whole number");
  EXPECT_EQ(process(R"({"pid": 99999999999})"),
            "/processes/0/pid: is not as small as it should be");
  EXPECT_EQ(process(R"({"start_ns": -1})"),
            "/processes/0/start_ns: is not a whole number of 0 or more");
  EXPECT_EQ(process(R"({"copied_anon_pages": 9223372036854775807})"),
            "/processes/0/copied_anon_pages: is not as small as it should be");
  EXPECT_EQ(process(R"({"shared_at_fork_bytes": 9223372036854775807})"),
            "/processes/0/shared_at_fork_bytes: is not as small as it should be");
  EXPECT_EQ(process(R"({"start_ns": 18446744073709551615})"), "taken");
  EXPECT_EQ(
      measured(R"("replace", "path": "/processes", "value": [)" +
               many_of(R"({"copied_anon_pages": 17592186044416, "copied_file_pages": 0})", 65) +
               "]"),
      "/processes: copied more than can be");
  EXPECT_EQ(process(R"({"role": "aunt"})"), "/processes/0/role: is not one of the known names");
  EXPECT_EQ(process("3"), "/processes/0: is not an object");
  EXPECT_EQ(measured(R"("replace", "path": "/processes", "value": {})"),
            "/processes: is not an array");
  EXPECT_EQ(measured(R"("replace", "path": "/schema", "value": "cowshed.run/7")"),
            "/schema: 'cowshed.run/7' is not known");
}

}  // namespace
}  // namespace cowshed::cowtop
