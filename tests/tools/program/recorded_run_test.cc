#include <nlohmann/json.hpp>

#include <cowshed/tests/support/scale.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/io/zstd_lines.h>

namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::run;

class RecordedRun : public ::testing::Test {
 protected:
  std::string report(const std::string& kind) const {
    const Finished finished =
        kind.empty() ? run({COWTOP, "report", path_}) : run({COWTOP, "report", kind, path_});
    EXPECT_EQ(finished.exit_status(), 0) << finished.err;
    return finished.out;
  }

  // The sum of all stacks of copies.
  std::uint64_t folded_pages() const {
    std::uint64_t pages = 0;
    std::istringstream lines(report("--folded"));
    for (std::string line; std::getline(lines, line);)
      if (!line.starts_with("[new memory];")) pages += std::stoull(line.substr(line.rfind(' ')));
    return pages;
  }

  TestFolder folder_;
  std::string path_ = folder_ / "recording";
};

std::uint64_t sum_of(const char* field, const nlohmann::json& report) {
  std::uint64_t pages = 0;
  for (const auto& process : report["processes"])
    pages += process[field].is_null() ? 0 : process[field].get<std::uint64_t>();
  return pages;
}

// As many processes as are listed, one of them a sum: everything says the same of all.
TEST_F(RecordedRun, AJobThatForksForEver) {
  constexpr bool kIsPlain = !test::kSanitized;
  constexpr std::uint64_t kForks = test::sized(10'000, 1'000);
  const std::string program = "i=0; while [ $i -lt " + std::to_string(kForks) +
                              " ]; do (:); i=$((i+1)); done; cat /proc/$PPID/status";
  const Finished recorded = run({COWTOP, "record", "-o", path_, "--", "sh", "-c", program});
  ASSERT_EQ(recorded.exit_status(), 0) << recorded.err;
  if (kIsPlain) {
    const auto peak = recorded.out.find("VmHWM:");
    ASSERT_NE(peak, std::string::npos) << recorded.out;
    EXPECT_LT(std::stoull(recorded.out.substr(peak + 6)), 64U << 10) << "KiB";
  }
  const auto json = nlohmann::json::parse(report("--json"));
  if (!json["exact"].get<bool>()) GTEST_SKIP() << "sampled, few of them are seen";
  // Those that ended are summed once a second.
  if (kIsPlain) EXPECT_LT(json["processes"].size(), kForks / 4 * 3);
  std::uint64_t processes = 0;
  for (const auto& process : json["processes"])
    processes += process.value("processes", std::uint64_t{1});
  EXPECT_EQ(processes, kForks + 2);
  EXPECT_EQ(json["processes"][0]["tree_processes"], processes);
  EXPECT_EQ(json["lost_events"], 0);
  const std::uint64_t pages = sum_of("copied_pages", json);
  EXPECT_EQ(json["processes"][0]["tree_copied_pages"], pages);
  EXPECT_GT(pages, kForks);
  const std::string table = report("--wide");
  EXPECT_THAT(table, HasSubstr("; " + std::to_string(kForks + 2) + " processes in"));
  if (kIsPlain)
    EXPECT_THAT(table, HasSubstr("of the processes that ended, which copied least, are summed"));
  EXPECT_EQ(folded_pages(), sum_of("all_copied_pages", json));
  const std::string page = folder_ / "page.html";
  EXPECT_EQ(run({COWTOP, "report", path_, "--html", page}).exit_status(), 0);
  EXPECT_THAT(contents_of(page), HasSubstr("\"tree_processes\":" + std::to_string(kForks + 2)));
}

std::string many(const std::string& text, std::size_t times) {
  std::string result;
  result.reserve(text.size() * times);
  for (; times > 0; --times) result += text;
  return result;
}

// A few KiB that would become GiB.
TEST_F(RecordedRun, ASmallFileDoesNotTakeMuchMemory) {
  constexpr std::size_t kMany = 40'000'000;
  ZstdLineEncoder encoder;
  const auto add = [&](const std::string& path, const std::string& value) {
    return encoder.encode(R"({"patch": [{"op": "add", "path": ")" + path + R"(", "value": )" +
                          value + "}]}");
  };
  const std::string begin =
      encoder.encode(R"({"schema": "cowshed.recording/1"})") + add("/schema", R"("cowshed.run/2")");
  std::string little_by_little;
  for (int i = 0; i < 5; ++i)
    little_by_little += add("/" + std::to_string(i), "[" + many("0,", kMany / 5) + "0]");
  std::vector<std::string> too_much{little_by_little};
  too_much.push_back(add("/processes", "[" + many("{},", kMany) + "{}]"));
  too_much.push_back(add("/x", "[" + many("[],", kMany) + "[]]"));
  too_much.push_back(add("/x", "[" + many("0,", kMany) + "0]"));
  for (const std::string& crafted : too_much) {
    EXPECT_LT(crafted.size(), 200'000U);
    write_file(path_, begin + crafted);
    EXPECT_THAT(run({COWTOP, "report", path_}).err,
                HasSubstr(path_ + ": is damaged: it would take more than 2 GiB of memory"));
  }
  // As many as there can be.
  write_file(path_, begin + add("/processes", "[" + many("{},", 30'000) + "{}]"));
  EXPECT_GT(report("--json").size(), 30'000'000U);
  rusage used{};
  ASSERT_EQ(::getrusage(RUSAGE_CHILDREN, &used), 0);
  EXPECT_LT(used.ru_maxrss, 1 << 20) << "KiB";
}

}  // namespace
}  // namespace cowshed::cowtop
