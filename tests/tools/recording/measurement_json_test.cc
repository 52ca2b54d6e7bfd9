#include <nlohmann/json.hpp>

#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>

namespace cowshed::cowtop {
namespace {

cow::Measurement one_process() {
  cow::ProcessCopies process = copier(0, "w\xff\"x", 3);
  process.copied_file_pages = 2;
  process.shared_at_fork_bytes = 10 * cow::kPageSize;
  process.arenas.push_back({"index", 4096, 2});
  cow::Measurement measurement = measurement_with({process});
  measurement.lost_events = 0;
  return measurement;
}

nlohmann::json reported(const cow::Measurement& measurement) {
  return nlohmann::json::parse(json_report(measurement));
}

void expect_fields(const nlohmann::json& object, const char* fields) {
  std::istringstream names(fields);
  for (std::string name; names >> name;) EXPECT_TRUE(object.contains(name)) << name;
}

TEST(JsonReport, HasEveryFieldOfTheContract) {
  const auto report = reported(one_process());
  expect_fields(report,
                "schema backend exact duration_s lost_events unsure_faults not_seen overhead "
                "processes");
  const auto& process = report["processes"][0];
  expect_fields(process,
                "pid ppid comm role start_ns end_ns exit_status signal shared_at_fork_bytes "
                "copied_pages copied_bytes copied_ratio copied_anon_pages copied_file_pages "
                "reused_pages zero_page_writes zero_filled_pages huge_splits write_notify_faults "
                "failed_faults other_faults memory not_measured tree_processes tree_copied_pages "
                "unreadable arenas patterns");
  EXPECT_EQ(process["copied_pages"], 5);
  EXPECT_EQ(process["copied_bytes"], 5 * 4096);
  EXPECT_EQ(process["copied_ratio"], 0.5);
  EXPECT_EQ(process["arenas"][0]["name"], "index");
}

TEST(JsonReport, NoMoreIsCopiedThanWasShared) {
  auto again = one_process();
  again.processes[0].copied_anon_pages = 994;
  EXPECT_EQ(reported(again)["processes"][0]["copied_ratio"], 1.0);
}

TEST(JsonReport, UnknownIsNullAndNotZero) {
  const auto report = reported(one_process());
  EXPECT_TRUE(report["processes"][0]["reused_pages"].is_null());
  EXPECT_TRUE(report["overhead"]["ns_per_event"].is_null());
  auto unknown = one_process();
  unknown.processes[0].copied_anon_pages.reset();
  const auto partly = reported(unknown);
  EXPECT_TRUE(partly["processes"][0]["copied_pages"].is_null());
  EXPECT_TRUE(partly["processes"][0]["copied_ratio"].is_null());
  EXPECT_EQ(partly["processes"][0]["copied_file_pages"], 2);
}

TEST(JsonReport, ProcessesNotSeenAndSumsOfTrees) {
  auto measurement = one_process();
  const auto told = reported(measurement);
  EXPECT_TRUE(told["not_seen"].is_null());
  EXPECT_TRUE(told["processes"][0]["not_measured"].is_null());
  measurement.not_seen = {2, std::nullopt};
  measurement.processes[0].pid = 7;
  measurement.processes[0].not_measured = "PID 7: no";
  measurement.processes.push_back(measurement.processes[0]);
  measurement.processes[1].ppid = 7;
  const auto report = reported(measurement);
  EXPECT_EQ(report["not_seen"]["at_least"], 2);
  EXPECT_TRUE(report["not_seen"]["at_most"].is_null());
  EXPECT_EQ(report["processes"][0]["not_measured"], "PID 7: no");
  EXPECT_EQ(report["processes"][0]["tree_processes"], 2);
  EXPECT_EQ(report["processes"][0]["tree_copied_pages"], 10);
  EXPECT_EQ(report["processes"][1]["tree_copied_pages"], 5);
}

TEST(JsonReport, WhatWasSent) {
  auto measurement = one_process();
  const auto unread = reported(measurement);
  EXPECT_FALSE(unread["processes"][0].contains("transfers"));
  measurement.processes[0].transfers = {{"channel", "jobs", "Job", "value", 2, 3, 128}};
  const auto read = reported(measurement);
  const auto& process = read["processes"][0];
  EXPECT_EQ(process["transfers_sampled"], true);
  EXPECT_EQ(process["transfers"], nlohmann::json::parse(R"([{"origin": "channel", "name": "jobs",
    "type": "Job", "kind": "value", "messages": 2, "objects": 3, "bytes": 128}])"));
}

TEST(JsonReport, SitesAreNullUnlessCopiesAreSampled) {
  const auto report = reported(one_process());
  EXPECT_TRUE(report["sampling"].is_null());
  for (const char* field : {"samples", "sites", "mappings", "ranges"}) {
    EXPECT_TRUE(report["processes"][0].contains(field)) << field;
    EXPECT_TRUE(report["processes"][0][field].is_null()) << field;
  }
}

TEST(JsonReport, Sites) {
  auto measurement = one_process();
  measurement.sampling = {64, 12, 10, 2, {"/bin/odd: why"}};
  cow::SampledCopies sampled;
  sampled.samples = 10;
  const cow::Frame frame = {"fill", "/src/fill.cc", 12, "/bin/fill", 0x1234, true};
  sampled.sites = {{{frame}, {frame, frame}, 7, 448, true}};
  sampled.mappings = {{"[heap]", 10, 640}};
  sampled.ranges = {{0x200000, 0x400000, "[heap]", 10, 640}};
  measurement.processes[0].sampled = sampled;
  measurement.sampled = sampled;
  const auto report = reported(measurement);
  EXPECT_EQ(report["sampling"],
            nlohmann::json::parse(R"({"period": 64, "emitted": 12, "received": 10, "lost": 2,
      "unread": ["/bin/odd: why"]})"));
  const auto site = nlohmann::json::parse(R"({"function": "fill", "file": "/src/fill.cc",
      "line": 12, "module": "/bin/fill", "address": 4660, "inlined": true
})");
  for (const auto& object : {report, report["processes"][0]}) {
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

TEST(JsonReport, WhyItWasCopied) {
  auto measurement = one_process();
  const auto unsampled = reported(measurement);
  EXPECT_TRUE(unsampled["processes"][0]["patterns"].is_null());
  measurement.processes[0].patterns = {{"reference count", 0.8, 4, "add [rdx], 1"}};
  const auto report = reported(measurement);
  EXPECT_EQ(report["processes"][0]["patterns"],
            nlohmann::json::parse(R"([{"pattern": "reference count", "share": 0.8, "samples": 4,
                "evidence": "add [rdx], 1"}])"));
}

TEST(JsonReport, ObjectsThatCouldNotBeReadAreAbsent) {
  auto measurement = one_process();
  const auto unread = reported(measurement);
  EXPECT_FALSE(unread["processes"][0].contains("objects"));
  EXPECT_FALSE(unread["processes"][0].contains("objects_sampled"));
  measurement.processes[0].objects = {{"words", "Words", "index", 2}};
  const auto read = reported(measurement);
  const auto& process = read["processes"][0];
  EXPECT_EQ(process["objects_sampled"], true);
  EXPECT_EQ(process["objects"][0]["name"], "words");
  EXPECT_EQ(process["objects"][0]["type"], "Words");
  EXPECT_EQ(process["objects"][0]["copied_pages"], 2);
}

}  // namespace
}  // namespace cowshed::cowtop
