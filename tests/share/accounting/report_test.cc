#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

using internal::TransferCounter;

TEST(TransferReport, SaysByWhatMeansChannelsSend) {
  Arena arena = make_arena();
  const auto ref = value_of(publish(std::span<const char>(*arena.make_array<char>(1000))));
  ASSERT_TRUE(arena.freeze());

  auto numbers = make<int>({.name = "numbers"});
  auto refs = make<Ref<std::span<const char>>>({.name = "refs"});
  auto bytes = make<Bytes>({.name = "bytes"});
  const std::array<int, 3> batch{1, 2, 3};
  ASSERT_TRUE(numbers.send(1));
  ASSERT_EQ(numbers.send_batch(batch).value(), 3U);
  ASSERT_TRUE(refs.send(ref));
  ASSERT_TRUE(bytes.send(std::as_bytes(std::span(batch))));
  ASSERT_TRUE(bytes.loan(10'000'000).value().commit());
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(numbers.receive());

  EXPECT_EQ(transfer_report().pid, ::getpid());
  TransferSource sent = sent_by("numbers");
  EXPECT_EQ(sent.by_value.messages, 4U);
  EXPECT_EQ(sent.by_value.bytes, 16U);
  ASSERT_EQ(sent.types.size(), 1U);
  EXPECT_EQ(sent.types[0].type, "int");
  sent = sent_by("refs");
  EXPECT_EQ(sent.by_value.messages, 0U);
  EXPECT_EQ(sent.by_reference.messages, 1U);
  EXPECT_EQ(sent.by_reference.bytes, 1000U) << "what it refers to";
  EXPECT_EQ(sent.types.at(0).type, "span<const char>");
  sent = sent_by("bytes");
  EXPECT_EQ(sent.by_value.bytes, 12U);
  EXPECT_EQ(sent.moved.bytes, 10'000'000U);
  EXPECT_EQ(sent.types.at(0).kind, TransferKind::moved) << "most bytes first";
}

TEST(TransferReport, AsATable) {
  const auto child = run_in_child([] {  // whose report begins empty
    const TransferCounter counter("channel", "jobs");
    const auto row = counter.row("app::Job", TransferKind::value);
    row.add(1, 2048);
    row.add(1, 2048);
    counter.add("app::Index", TransferKind::reference, 1, std::uint64_t{2} << 30U);
    TransferCounter("launch", "search\033[2J")
        .add("std::vector<int>", TransferKind::inherited, 1, 12);
    return to_table(transfer_report());
  });
  EXPECT_THAT(child.said,
              HasSubstr(" has sent 4.0 KiB by value, 2.0 GiB by reference, 0 B moved\n"));
  EXPECT_THAT(
      child.said,
      HasSubstr("ORIGIN   NAME        SENT BY    MESSAGES  OBJECTS    BYTES  TYPE\n"
                "channel  jobs        reference         1        1  2.0 GiB  app::Index\n"
                "channel  jobs        value             2        2  4.0 KiB  app::Job\n"
                "launch   search [2J  inherited         1        1     12 B  vector<int>\n"));
}

TEST(TransferReport, OfNothing) {
  EXPECT_THAT(run_in_child([] { return to_table(transfer_report()); }).said,
              EndsWith(" has sent 0 B by value, 0 B by reference, 0 B moved\n"));
}

}  // namespace
}  // namespace cowshed
