#include <nlohmann/json.hpp>

#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>

namespace cowshed::cowtop {
namespace {

// Of one process.
class JsonReport : public ::testing::Test {
 protected:
  JsonReport() {
    cow::ProcessCopies process = copier(0, "w\xff\"x", 3);
    process.copied_file_pages = 2;
    process.shared_at_fork_bytes = 10 * cow::kPageSize;
    process.arenas.push_back({"index", 4096, 2});
    measurement_ = measurement_with({process});
    measurement_.lost_events = 0;
  }

  cow::ProcessCopies& process() { return measurement_.processes[0]; }
  nlohmann::json reported() const { return nlohmann::json::parse(json_report(measurement_)); }
  nlohmann::json reported_process() const { return reported()["processes"][0]; }

  cow::Measurement measurement_;
};

TEST_F(JsonReport, ATerminalThatShowsItIsSafe) {
  const std::string comm = "\u009b31m \u202e \x7f \U000e0041 \u00e9";
  process().comm = comm;
  EXPECT_THAT(json_report(measurement_), HasSubstr(R"("\u009b31m \u202e \u007f \udb40\udc41 )"
                                                   "\u00e9\""));
  EXPECT_EQ(reported_process()["comm"], comm);
}

TEST_F(JsonReport, UnknownIsNullAndNotZero) {
  EXPECT_TRUE(reported_process()["reused_pages"].is_null());
  EXPECT_TRUE(reported()["overhead"]["ns_per_event"].is_null());
  process().copied_anon_pages.reset();
  EXPECT_TRUE(reported_process()["copied_pages"].is_null());
  EXPECT_TRUE(reported_process()["copied_ratio"].is_null());
  EXPECT_EQ(reported_process()["copied_file_pages"], 2);
}

TEST_F(JsonReport, ProcessesNotSeenAndSumsOfTrees) {
  EXPECT_TRUE(reported()["not_seen"].is_null());
  EXPECT_TRUE(reported_process()["not_measured"].is_null());
  measurement_.not_seen = {2, std::nullopt};
  process().pid = 7;
  process().not_measured = "PID 7: no";
  cow::ProcessCopies child = process();
  child.ppid = 7;
  measurement_.processes.push_back(child);
  const auto report = reported();
  EXPECT_EQ(report["not_seen"]["at_least"], 2);
  EXPECT_TRUE(report["not_seen"]["at_most"].is_null());
  EXPECT_EQ(report["processes"][0]["not_measured"], "PID 7: no");
  EXPECT_EQ(report["processes"][0]["tree_processes"], 2);
  EXPECT_EQ(report["processes"][0]["tree_copied_pages"], 10);
  EXPECT_EQ(report["processes"][1]["tree_copied_pages"], 5);
}

TEST_F(JsonReport, WhatWasSent) {
  EXPECT_FALSE(reported_process().contains("transfers"));
  process().transfers = {{"channel", "jobs", "Job", "value", 2, 3, 128}};
  EXPECT_EQ(reported_process()["transfers_sampled"], true);
  EXPECT_EQ(reported_process()["transfers"],
            nlohmann::json::parse(R"([{"origin": "channel", "name": "jobs", "type": "Job",
                "kind": "value", "messages": 2, "objects": 3, "bytes": 128}])"));
}

TEST_F(JsonReport, SitesAreNullUnlessCopiesAreSampled) {
  EXPECT_TRUE(reported()["sampling"].is_null());
  const auto told = reported_process();
  for (const char* field : {"samples", "sites", "mappings", "ranges"})
    EXPECT_TRUE(told.at(field).is_null()) << field;
}

TEST_F(JsonReport, Sites) {
  measurement_ = full_measurement();
  measurement_.sampling->unread = {"/bin/odd: why"};
  const auto report = reported();
  EXPECT_EQ(report["sampling"],
            nlohmann::json::parse(R"({"period": 64, "emitted": 12, "received": 10, "lost": 2,
                "unread": ["/bin/odd: why"]})"));
  const auto site = nlohmann::json::parse(R"json({"function": "fill()", "file": "/src/fill.cc",
      "line": 12, "module": "/bin/fill", "address": 4660, "inlined": true})json");
  for (const auto& object : {report, report["processes"][1]}) {
    EXPECT_EQ(object["samples"], 10);
    EXPECT_EQ(object["sites"][0]["samples"], 7);
    EXPECT_EQ(object["sites"][0]["estimated_copies"], 448);
    EXPECT_EQ(object["sites"][0]["frames"][0], site);
    EXPECT_EQ(object["sites"][0]["stack"].size(), 2);
    EXPECT_EQ(object["sites"][0]["truncated"], true);
    EXPECT_EQ(object["mappings"][0], nlohmann::json::parse(R"({"name": "[heap]", "samples": 10,
        "estimated_copies": 640})"));
    EXPECT_EQ(object["ranges"][0]["begin"], 0x200000);
    EXPECT_EQ(object["ranges"][0]["mapping"], "[heap]");
  }
}

TEST_F(JsonReport, ObjectsThatCouldNotBeReadAreAbsent) {
  EXPECT_FALSE(reported_process().contains("objects"));
  EXPECT_FALSE(reported_process().contains("objects_sampled"));
  process().objects = {{"words", "Words", "index", 2}};
  const auto told = reported_process();
  EXPECT_EQ(told["objects_sampled"], true);
  EXPECT_EQ(told["objects"][0]["name"], "words");
  EXPECT_EQ(told["objects"][0]["type"], "Words");
  EXPECT_EQ(told["objects"][0]["copied_pages"], 2);
}

}  // namespace
}  // namespace cowshed::cowtop
