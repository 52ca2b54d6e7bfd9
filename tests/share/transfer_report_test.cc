#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/transfer_report.h>
#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/test.h>

namespace cowshed {
namespace {

using internal::TransferCounter;

const TransferSource* source(const TransferReport& report, const std::string& name) {
  for (const TransferSource& each : report.sources)
    if (each.name == name) return &each;
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
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(numbers.receive());

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
  EXPECT_THAT(
      text, HasSubstr("ORIGIN   NAME        SENT BY    MESSAGES  OBJECTS    BYTES  TYPE\n"
                      "channel  jobs        reference         1        1  2.0 GiB  app::Index\n"
                      "channel  jobs        value             2        2  4.0 KiB  app::Job\n"
                      "launch   search [2J  inherited         1        1     12 B  vector<int>\n"));
}

TEST(TransferReport, OfNothing) {
  EXPECT_THAT(alone([] { return to_table(transfer_report()); }),
              EndsWith(" has sent 0 B by value, 0 B by reference, 0 B moved\n"));
}

}  // namespace
}  // namespace cowshed
