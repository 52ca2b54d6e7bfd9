#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <string>
#include <unistd.h>

#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/transfer_report.h>

#include "child.h"

namespace cowshed {
namespace {

using internal::TransferCounter;
using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

const TransferSource* source(const TransferReport& report, const std::string& name) {
  for (const TransferSource& each : report.sources) {
    if (each.name == name) {
      return &each;
    }
  }
  return nullptr;
}

// In a child, whose report begins empty.
template <class Function>
std::string alone(Function function) {
  return test::run_in_child([&]() -> std::string { return function(); }).said;
}

TEST(TransferReport, SaysByWhatMeansChannelsSend) {
  auto arena = Arena::create({.name = "report", .capacity = 64_MiB});
  ASSERT_TRUE(arena);
  const auto text = arena->make_array<char>(1000);
  ASSERT_TRUE(text);
  const auto ref = publish(std::span<const char>(*text));
  ASSERT_TRUE(ref);
  ASSERT_TRUE(arena->freeze());

  auto numbers = Channel<int>::create({.name = "numbers"}).value();
  auto refs = Channel<Ref<std::span<const char>>>::create({.name = "refs"}).value();
  auto bytes = Channel<Bytes>::create({.name = "bytes"}).value();
  const std::array<int, 3> batch{1, 2, 3};
  ASSERT_TRUE(numbers.send(1));
  ASSERT_EQ(numbers.send_batch(batch).value(), 3U);
  ASSERT_TRUE(refs.send(*ref));
  ASSERT_TRUE(bytes.send(std::as_bytes(std::span(batch))));
  ASSERT_TRUE(bytes.send(bytes.buffer(10'000'000).value()));
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(numbers.receive());
  }

  const TransferReport report = transfer_report();
  EXPECT_EQ(report.pid, ::getpid());
  const TransferSource* sent = source(report, "numbers");
  ASSERT_NE(sent, nullptr);
  EXPECT_EQ(sent->origin, "channel");
  EXPECT_EQ(sent->by_value.messages, 4U);
  EXPECT_EQ(sent->by_value.bytes, 16U);
  ASSERT_EQ(sent->types.size(), 1U);
  EXPECT_EQ(sent->types[0].type, "int");

  sent = source(report, "refs");
  ASSERT_NE(sent, nullptr);
  EXPECT_EQ(sent->by_value.messages, 0U);
  EXPECT_EQ(sent->by_reference.messages, 1U);
  EXPECT_EQ(sent->by_reference.bytes, 1000U) << "what it refers to";
  EXPECT_EQ(sent->types.at(0).type, "span<const char>");

  sent = source(report, "bytes");
  ASSERT_NE(sent, nullptr);
  EXPECT_EQ(sent->by_value.bytes, 12U);
  EXPECT_EQ(sent->moved.bytes, 10'000'000U);
  EXPECT_EQ(sent->types.at(0).kind, TransferKind::moved) << "most bytes first";
}

void send_something() {
  const TransferCounter counter("channel", "jobs");
  const auto row = counter.row("app::Job", TransferKind::value);
  row.add(1, 2048);
  row.add_paths({{"app::Job", 1, 2048, 8}, {"app::Job → string", 3, 2040, 2040}});
  row.add(1, 2048);
  counter.add("app::Index", TransferKind::reference, 1, std::uint64_t{2} << 30U);
  TransferCounter("launch", "search\033[2J")
      .add("std::vector<int>", TransferKind::inherited, 1, 12);
}

TEST(TransferReport, AsATable) {
  const std::string text = alone([] {
    send_something();
    return to_table(transfer_report());
  });
  EXPECT_THAT(text, HasSubstr(" has sent 4.0 KiB by value, 2.0 GiB by reference, 0 B moved\n"));
  EXPECT_THAT(text,
              HasSubstr("ORIGIN   NAME        SENT BY    MESSAGES  OBJECTS    BYTES  TYPE\n"
                        "channel  jobs        reference         1        1  2.0 GiB  app::Index\n"
                        "channel  jobs        value             2        2  4.0 KiB  app::Job\n"
                        "launch   search?[2J  inherited         1        1     12 B  vector<int>\n"
                        "\n"
                        "in 1 of 2 messages through channel 'jobs':\n"
                        "OBJECTS    BYTES  TYPE PATH\n"
                        "      1  2.0 KiB  app::Job\n"
                        "      3  2.0 KiB  app::Job → string\n"));
}

TEST(TransferReport, ATableShowsTheLargestPaths) {
  const std::string text = alone([] {
    send_something();
    return to_table(transfer_report(), 1);
  });
  EXPECT_THAT(text, HasSubstr("  app::Job\n... and 1 more, all smaller\n"));
  EXPECT_THAT(text, Not(HasSubstr("→ string")));
}

TEST(TransferReport, OfNothing) {
  EXPECT_THAT(alone([] { return to_table(transfer_report()); }),
              testing::EndsWith(" has sent 0 B by value, 0 B by reference, 0 B moved\n"));
  const json report = json::parse(alone([] { return to_json(transfer_report()); }));
  EXPECT_EQ(report["sources"], json::array());
}

TEST(TransferReport, AsJson) {
  const json report = json::parse(alone([] {
    send_something();
    TransferCounter("channel", "\xff").add("int", TransferKind::moved, 1, 4);
    return to_json(transfer_report());
  }));
  EXPECT_EQ(report["schema"], "cowshed.transfer/1");
  EXPECT_GT(report["pid"], 0);
  ASSERT_EQ(report["sources"].size(), 3U);
  EXPECT_EQ(report["sources"][0], json::parse(R"({
    "origin": "channel", "name": "jobs",
    "by_value": {"messages": 2, "objects": 2, "bytes": 4096},
    "by_reference": {"messages": 1, "objects": 1, "bytes": 2147483648},
    "moved": {"messages": 0, "objects": 0, "bytes": 0},
    "inherited": {"messages": 0, "objects": 0, "bytes": 0},
    "types": [
      {"type": "app::Index", "kind": "reference", "messages": 1, "objects": 1,
       "bytes": 2147483648, "messages_looked_into": 0, "paths": null},
      {"type": "app::Job", "kind": "value", "messages": 2, "objects": 2, "bytes": 4096,
       "messages_looked_into": 1, "paths": [
         {"path": "app::Job", "objects": 1, "bytes": 2048, "own_bytes": 8},
         {"path": "app::Job → string", "objects": 3, "bytes": 2040, "own_bytes": 2040}]}]})"));
  EXPECT_EQ(report["sources"][1]["inherited"]["objects"], 1);
  EXPECT_EQ(report["sources"][2]["name"], "\xef\xbf\xbd");
}

}  // namespace
}  // namespace cowshed
