#include <protozero/pbf_reader.hpp>

#include <cowshed/cow/fork_copies.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tests/tools/report/screens.h>
#include <cowshed/tools/cowtop/report/pprof_report.h>

namespace cowshed::cowtop {
namespace {

std::string decompressed(const std::string& bytes) {
  const TestFolder folder;
  return test::run({"zcat", folder.write("profile.gz", bytes)}).out;
}

struct Sample {
  std::vector<std::string> stack;  // "name file:line [mapping]", innermost first
  std::vector<std::int64_t> values;
  std::map<std::string, std::string> labels;
};

// Reads a message by its field numbers, which profile.proto has.
class Profile {
 public:
  explicit Profile(const std::string& report) : bytes_(decompressed(report)) {
    auto [numbers, parts] = fields(bytes_);
    for (const View& each : parts[6]) texts_.emplace_back(each);
    default_type_ = numbers[14];
    time_ns = static_cast<std::int64_t>(numbers[9]);
    period = static_cast<std::int64_t>(numbers[12]);
    messages_ = std::move(parts);
    for (const auto& message : messages_[2]) samples.push_back(sample(message));
    for (const auto& message : messages_[1]) {
      auto [type, none] = fields(message);
      types.push_back(text(type[1]) + "/" + text(type[2]));
    }
  }
  std::string default_type() const { return texts_.at(default_type_); }
  std::int64_t sum(std::size_t value) const {
    std::int64_t result = 0;
    for (const Sample& each : samples) result += each.values.at(value);
    return result;
  }

  std::vector<std::string> types;
  std::vector<Sample> samples;
  std::int64_t time_ns = 0;
  std::int64_t period = 0;
  mutable std::string native;  // functions, where pprof shortens C++ names

 private:
  using View = protozero::data_view;
  using Numbers = std::map<unsigned, std::uint64_t>;

  template <class Function>
  static void each(const View& message, Function function) {
    protozero::pbf_reader reader(message);
    while (reader.next()) function(reader);
  }
  static std::pair<Numbers, std::map<unsigned, std::vector<View>>> fields(const View& message) {
    Numbers numbers;
    std::map<unsigned, std::vector<View>> parts;
    each(message, [&](protozero::pbf_reader& field) {
      if (field.wire_type() == protozero::pbf_wire_type::varint)
        numbers[field.tag()] = field.get_uint64();
      else parts[field.tag()].push_back(field.get_view());
    });
    return {std::move(numbers), std::move(parts)};
  }
  std::string text(std::uint64_t number) const { return texts_.at(number); }
  // The message with an ID, of those of a field of the profile.
  View message(unsigned tag, std::uint64_t id) const {
    for (const View& each : messages_.at(tag))
      if (fields(each).first[1] == id) return each;
    throw std::runtime_error("no message has the ID");
  }
  std::string frame(std::uint64_t location_id) const {
    auto [location, parts] = fields(message(4, location_id));
    auto [line, none] = fields(parts[4].at(0));
    auto [function, nothing] = fields(message(5, line[1]));
    std::string result = text(function[2]);
    const std::string file = text(function[4]);
    if (text(function[3]) == result) native += result + " ";
    else EXPECT_EQ(function[3], 0U);
    if (!file.empty()) result += " " + file + ":" + std::to_string(line[2]);
    if (location[2] != 0) {
      auto [mapping, no_parts] = fields(message(3, location[2]));
      result += " [" + text(mapping[5]) + "]";
      for (const unsigned is_known : {7U, 8U, 9U, 10U}) EXPECT_EQ(mapping[is_known], 1U);
    }
    return result;
  }
  Sample sample(const View& message) const {
    Sample result;
    each(message, [&](protozero::pbf_reader& field) {
      if (field.tag() == 1) {
        for (const auto id : field.get_packed_uint64()) result.stack.push_back(frame(id));
      } else if (field.tag() == 2) {
        for (const auto value : field.get_packed_int64()) result.values.push_back(value);
      } else {
        auto [label, none] = fields(field.get_view());
        result.labels[text(label[1])] =
            label.contains(2) ? text(label[2]) : std::to_string(label[3]);
      }
    });
    return result;
  }

  std::string bytes_;
  std::vector<std::string> texts_;
  std::uint64_t default_type_ = 0;
  std::map<unsigned, std::vector<View>> messages_;
};

constexpr std::int64_t kPage = cow::kPageSize;

cow::Frame python_line(const std::string& function, int line) {
  return {function, "/app/pool.py", line, "/usr/bin/python3.11", 0, false, true};
}

// A worker of 1,000 copies, of which 100 samples tell.
cow::ProcessCopies worker() {
  cow::ProcessCopies process = copier(41, "worker", 1000);
  process.cgroup = "/docker/0123456789ab" + std::string(52, 'a');
  process.shared_at_fork_bytes = 1 << 30;
  const cow::Frame add{"_Py_INCREF", "object.h", 12, "/usr/bin/python3.11", 0x12, true};
  const cow::Frame total = python_line("total", 4);
  cow::SampledCopies& sampled = process.sampled.emplace();
  sampled.samples = 100;
  sampled.sites = {{{add, total}, {add, total, python_line("main", 9)}, 70, 700, false}};
  sampled.stacks = {
      {"main (pool.py:9);total (pool.py:4);_Py_INCREF", 70, 700, "reference count", "str"},
      {"main (pool.py:9);total (pool.py:4);_Py_INCREF", 10, 100, "reference count", "list"},
      {"main (pool.py:9);other (x.py:7);memcpy", 20, 200, "bulk copy"}};
  process.patterns.emplace();
  return process;
}

TEST(PprofReport, HasTheLinesAndTheLabelsOfEachStack) {
  cow::Measurement measurement = measurement_with({worker()});
  measurement.sampling = {64, 100, 100, 0};
  const Profile profile(pprof_report(measurement, 1.5));
  EXPECT_THAT(profile.types,
              ElementsAre("copied/bytes", "copied_pages/pages", "new/bytes", "new_pages/pages"));
  EXPECT_EQ(profile.default_type(), "copied");
  EXPECT_EQ(profile.time_ns, 1'500'000'000);
  EXPECT_EQ(profile.period, 64);
  ASSERT_THAT(profile.samples, SizeIs(3));
  const Sample& first = profile.samples[0];
  EXPECT_THAT(first.stack, ElementsAre("_Py_INCREF object.h:12 [/usr/bin/python3.11]",
                                       "total /app/pool.py:4 [/usr/bin/python3.11]",
                                       "main /app/pool.py:9 [/usr/bin/python3.11]"));
  EXPECT_THAT(profile.native, AllOf(HasSubstr("_Py_INCREF "), Not(HasSubstr("total "))));
  EXPECT_THAT(first.values, ElementsAre(700 * kPage, 700, 0, 0));
  const std::map<std::string, std::string> labels = {{"process", "worker"},
                                                     {"pid", "41"},
                                                     {"container", "0123456789ab"},
                                                     {"cause", "reference count"},
                                                     {"object", "str"}};
  EXPECT_EQ(first.labels, labels);
  EXPECT_EQ(profile.samples[1].labels.at("object"), "list");
  EXPECT_EQ(profile.samples[2].labels.count("object"), 0U);
  EXPECT_THAT(profile.samples[2].stack,
              ElementsAre("memcpy", "other x.py:7", "main /app/pool.py:9 [/usr/bin/python3.11]"))
      << "a frame of no site has what its name says";
}

TEST(PprofReport, AddsUpToCopied) {
  cow::ProcessCopies ending = worker();  // a tenth at its end
  ending.pid = 42;
  ending.patterns = {{"bulk copy", 0.9, 9, ""}, {"program exit", 0.1, 1, ""}};
  ending.sampled->stacks[1].cause = "program exit";
  cow::ProcessCopies relocated =
      worker();  // its first writes to files are no copies of shared pages
  relocated.pid = 43;
  relocated.copied_anon_pages = 800;
  relocated.copied_file_pages = 200;
  relocated.copied_shared_file_pages = 0;
  relocated.sampled->stacks[2].cause = "relocation";
  cow::ProcessCopies executed = worker();
  executed.pid = 44;
  executed.execs = 1;
  executed.copied_pages_before_exec = 7;
  cow::ProcessCopies unsampled = copier(45, "other", 333);
  cow::ProcessCopies unknown = copier(46, "unknown", 0);
  unknown.copied_anon_pages.reset();
  const cow::Measurement measurement =
      measurement_with({ending, relocated, executed, unsampled, unknown});
  const auto copies = cow::fork_copies(measurement);
  const Profile profile(pprof_report(measurement, 0));
  std::map<std::string, std::int64_t> pages;
  std::map<std::string, std::set<std::string>> innermost;
  for (const Sample& each : profile.samples) {
    const std::string& pid = each.labels.at("pid");
    pages[pid] += each.values.at(1);
    EXPECT_EQ(each.values.at(0), each.values.at(1) * kPage);
    innermost[pid].insert(each.stack.front());
    EXPECT_NE(each.labels.count("cause") == 0 ? "" : each.labels.at("cause"), "program exit");
    EXPECT_NE(each.labels.count("cause") == 0 ? "" : each.labels.at("cause"), "relocation");
  }
  for (std::size_t i = 0; i < copies.size(); ++i) {
    EXPECT_EQ(pages[std::to_string(measurement.processes[i].pid)],
              static_cast<std::int64_t>(copies[i].copied_pages.value_or(0)));
  }
  EXPECT_THAT(innermost["44"], ElementsAre("[copied before exec]"));
  EXPECT_THAT(innermost["45"], ElementsAre("[not sampled]"));
  EXPECT_EQ(pages["42"], 900);
  EXPECT_EQ(pages["43"], 800);
}

TEST(PprofReport, SpreadsNewMemoryOverItsStacks) {
  cow::ProcessCopies child = copier(41, "worker", 0);
  child.shared_at_fork_bytes = 0;
  child.alive = true;
  child.zero_filled_pages = 301;
  cow::Measurement measurement = measurement_with({child});
  measurement.new_memory.emplace();
  measurement.new_memory->causes = {{{"own data"}, 9, 90}};
  measurement.new_memory->stacks = {{"main;load", 6, 60, "own data"},
                                    {"main;parse", 1, 10, "received"}};
  const Profile profile(pprof_report(measurement, 0));
  EXPECT_EQ(profile.sum(3), 301);
  EXPECT_EQ(profile.sum(2), 301 * kPage);
  EXPECT_EQ(profile.sum(0), 0);
  ASSERT_THAT(profile.samples, SizeIs(3));
  EXPECT_THAT(profile.samples[0].stack, ElementsAre("load", "main"));
  EXPECT_EQ(profile.samples[0].values.at(3), 200);
  EXPECT_EQ(profile.samples[0].labels.at("cause"), "own data");
  EXPECT_THAT(profile.samples[2].stack, ElementsAre("[further stacks]"));

  measurement.processes[0].memory = {0, 1301 * kPage, 1, 301};
  const Profile populated(pprof_report(measurement, 0));
  EXPECT_EQ(populated.sum(3), 1301);
  ASSERT_THAT(populated.samples, SizeIs(4));
  EXPECT_THAT(populated.samples[0].stack, ElementsAre("[no write fault]"));
  EXPECT_EQ(populated.samples[0].values.at(3), 1000);
  EXPECT_EQ(populated.samples[1].values.at(3), 200);
  measurement.processes[0].memory.reset();

  measurement.new_memory.reset();
  const Profile without_samples(pprof_report(measurement, 0));
  ASSERT_THAT(without_samples.samples, SizeIs(1));
  EXPECT_EQ(without_samples.samples[0].labels.at("process"), "worker");
  EXPECT_EQ(without_samples.sum(3), 301);
}

TEST(PprofReport, AddsUpToTheFiguresOfEachRecording) {
  for (const auto& [path, screens] : all_screens()) {
    for (const ScreenCase& each : screens) {
      const cow::Measurement measurement = measurement_of(each);
      std::uint64_t copied = 0;
      std::uint64_t fresh = 0;
      for (const cow::ForkCopies& copies : cow::fork_copies(measurement)) {
        copied += copies.copied_pages.value_or(0);
        fresh += copies.new_bytes.value_or(0) / kPage;
      }
      const Profile profile(pprof_report(measurement, 0));
      EXPECT_EQ(profile.sum(1), copied) << each.name;
      EXPECT_EQ(profile.sum(3), fresh) << each.name;
    }
  }
}

TEST(PprofReport, OfNothing) { EXPECT_THAT(Profile(pprof_report({}, 0)).samples, IsEmpty()); }

}  // namespace
}  // namespace cowshed::cowtop
