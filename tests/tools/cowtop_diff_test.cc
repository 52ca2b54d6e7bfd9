#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <string>

#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/measurement_json.h>

namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::run;
using ::testing::HasSubstr;

class CowtopDiff : public ::testing::Test {
 protected:
  void record(const std::string& path, const std::string& copies) {
    const Finished finished =
        run({COWTOP, "record", "-o", path, "--", COPY_SUBJECT, "3000", "2", copies, "300"});
    ASSERT_EQ(finished.exit_status(), 0) << finished.err;
  }
  TestFolder folder_;
  std::string before_ = folder_ / "before";
  std::string after_ = folder_ / "after";
};

TEST_F(CowtopDiff, TwoRecordings) {
  record(before_, "500");
  record(after_, "2500");
  const Finished finished = run({COWTOP, "diff", "--json", before_, after_});
  ASSERT_EQ(finished.exit_status(), 0) << finished.err;
  const auto report = nlohmann::json::parse(finished.out);
  EXPECT_EQ(report["schema"], "cowshed.diff/1");
  EXPECT_EQ(report["before"], before_);
  std::int64_t growth = 0;
  for (const auto& process : report["processes"]) {
    const bool is_child = process["name"].get<std::string>().find('/') != std::string::npos;
    EXPECT_NEAR(process["growth"].get<int>(), is_child ? 2000 : 0, 10) << process;
    growth += process["growth"].get<std::int64_t>();
  }
  EXPECT_EQ(report["processes"].size(), 3);
  EXPECT_EQ(report["total"]["growth"], growth) << "the processes add up to it";

  const Finished text = run({COWTOP, "diff", before_, after_});
  EXPECT_EQ(text.exit_status(), 0);
  EXPECT_THAT(text.out, HasSubstr("before: " + before_));
  EXPECT_THAT(text.out, HasSubstr("copy_subject/copy_subject[2]"));
}

TEST_F(CowtopDiff, OfOneWithItselfNothingHasChanged) {
  record(before_, "100");
  const Finished finished = run({COWTOP, "diff", "--json", before_, before_});
  const auto report = nlohmann::json::parse(finished.out);
  EXPECT_EQ(report["total"]["growth"], 0);
  EXPECT_EQ(report["total"]["before"], report["total"]["after"]);
}

TEST_F(CowtopDiff, IsNotWrittenOverWhatItReads) {
  const std::string report = json_report(full_measurement());
  write_file(before_, report);
  write_file(after_, report);
  for (const std::string& read : {before_, after_}) {
    for (const char* option : {"-o", "--html"}) {
      const Finished refused = run({COWTOP, "diff", before_, after_, option, read});
      EXPECT_EQ(refused.exit_status(), 125);
      EXPECT_THAT(refused.err, HasSubstr(read + ": is the same file as " + read));
      EXPECT_EQ(contents_of(read), report);
    }
  }
}

TEST_F(CowtopDiff, AJsonReportDoesAsWell) {
  write_file(before_, json_report(full_measurement()));
  auto more = full_measurement();
  more.processes[1].copied_anon_pages = 700;
  more.backend = "pagemap";
  write_file(after_, json_report(more));
  const Finished finished = run({COWTOP, "diff", "--json", before_, after_});
  EXPECT_EQ(finished.exit_status(), 0);
  EXPECT_EQ(nlohmann::json::parse(finished.out)["total"]["growth"], 100);
  EXPECT_THAT(finished.err, HasSubstr("they do not count the same"));
}

TEST_F(CowtopDiff, FromPipes) {
  record(before_, "100");
  write_file(after_, json_report(full_measurement()));
  const auto total = [&](const std::string& files) {
    const Finished finished =
        run({"bash", "-c", "cd " + (folder_ / "") + " && " + COWTOP + " diff --json " + files});
    EXPECT_EQ(finished.exit_status(), 0) << files << finished.err;
    return nlohmann::json::parse(finished.out)["total"];
  };
  const auto usual = total("before after");
  EXPECT_EQ(total("<(cat before) <(cat after)"), usual);
  EXPECT_EQ(total("/dev/stdin after <before"), usual);
  EXPECT_EQ(total("before /dev/stdin <after"), usual);
}

TEST_F(CowtopDiff, WhatCannotBeRead) {
  write_file(before_, "neither");
  for (const std::vector<std::string>& words : {std::vector<std::string>{"diff"},
                                                {"diff", before_},
                                                {"diff", before_, before_},
                                                {"diff", "/", "/"},
                                                {"diff", "/dev/zero", before_},
                                                {"diff", "/no/such", before_}}) {
    std::vector<std::string> arguments = words;
    arguments.insert(arguments.begin(), COWTOP);
    const Finished finished = run(arguments);
    EXPECT_EQ(finished.exit_status(), 125);
    EXPECT_EQ(finished.out, "");
    EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
  }
}

}  // namespace
}  // namespace cowshed::cowtop
