#include "share.h"

namespace cowshed {
namespace {

using Config = std::map<std::string, std::vector<std::string>>;

Config config(int entries, std::size_t length) {
  Config result;
  for (int i = 0; i < entries; ++i)
    result["key " + std::to_string(i)] = {std::string(length, 'a'), std::string(length, 'b')};
  return result;
}

TEST(ObjectChannel, CarriesObjectsBetweenProcesses) {
  auto there = Channel<Config>::create({.name = "there"}).value();
  auto back = Channel<Config>::create({.name = "back"}).value();
  const auto small = config(1, 3);
  const auto large = config(500, 5000);
  for (const auto* each : {&small, &large}) ASSERT_TRUE(there.send(*each));
  there.close();
  const auto child = run_in_child([&] {
    int count = 0;
    for (auto object = there.receive(); object; object = there.receive()) {
      object->emplace("answer", std::vector<std::string>{});
      if (!back.send(*object)) break;
      ++count;
    }
    return std::to_string(count);
  });
  EXPECT_EQ(child.said, "2");
  for (const auto* each : {&small, &large}) {
    auto object = back.try_receive();
    ASSERT_TRUE(object) << object.error().message;
    EXPECT_EQ(object->erase("answer"), 1U);
    EXPECT_EQ(*object, *each);
  }
  EXPECT_EQ(back.try_receive().error().code, ErrorCode::would_block);
  EXPECT_EQ(there.send(small).error().code, ErrorCode::closed);
}

TEST(ObjectChannel, AReceiverKilledWithAnObjectInHandIsNamed) {
  auto channel = make<Config>();
  for (const std::size_t length : {3U, 5000U}) {  // in the slot and in a block
    ASSERT_TRUE(channel.send(config(1, length)));
    const auto child = run_in_child([&] {
      const auto object = channel.receive();
      raise(SIGKILL);
      return std::string();
    });
    EXPECT_EQ(child.signal, SIGKILL);
    EXPECT_EQ(channel.stats().lost.size(), length == 3 ? 1U : 2U);
    EXPECT_EQ(channel.stats().outstanding, 0U);
  }
}

TEST(ObjectChannel, WhatItSendsIsCounted) {
  auto channel = Channel<std::vector<std::string>>::create({.name = "counted"}).value();
  ASSERT_TRUE(channel.send({"four", "five5"}));
  const auto types = sent_by("counted").types;
  ASSERT_EQ(types.size(), 1U);
  EXPECT_EQ(types[0].type, "vector<string>");
  EXPECT_EQ(types[0].kind, TransferKind::value);
  EXPECT_EQ(types[0].sent.bytes, 3 * sizeof(std::uint64_t) + 9);
}

TEST(ObjectChannel, WhatIsNotSentIsNotCounted) {
  auto channel = Channel<Config>::create({.name = "full", .slots = 2}).value();
  ASSERT_TRUE(channel.send(config(1, 1)));
  ASSERT_TRUE(channel.send(config(1, 1)));
  EXPECT_EQ(channel.try_send(config(1, 1)).error().code, ErrorCode::would_block);
  EXPECT_EQ(sent_by("full").by_value.messages, 2U);
}

TEST(ObjectChannel, OneOfAnotherTypeIsRefused) {
  auto channel = Channel<Config>::create({.name = "typed"}).value();
  const ChannelDescriptors copies{::dup(channel.descriptors().segment),
                                  ::dup(channel.descriptors().event)};
  EXPECT_THAT(Channel<std::string>::from_descriptors(copies), Fails(ErrorCode::wrong_type));
  EXPECT_FALSE(Channel<Bytes>::from_descriptors(copies));
  auto same = value_of(Channel<Config>::from_descriptors(copies));
  ASSERT_TRUE(channel.send(config(2, 2)));
  EXPECT_EQ(same.receive().value(), config(2, 2));
}

TEST(ObjectChannel, WhatCannotBeDecodedIsAnError) {
  auto channel = make<Config>();
  ASSERT_TRUE(channel.internals().ByteChannel::send(std::vector<std::byte>(7), {}));
  EXPECT_EQ(channel.receive().error().code, ErrorCode::bad_encoding);
  ASSERT_TRUE(channel.internals().ByteChannel::send(std::vector<std::byte>(9), {}));
  EXPECT_EQ(channel.receive().error().code, ErrorCode::bad_encoding) << "bytes are left over";
  EXPECT_EQ(channel.try_receive().error().code, ErrorCode::would_block);
}

TEST(ObjectChannel, WhatHasDescriptorsIsRefused) {
  auto channel = Channel<std::vector<Channel<int>>>::create().value();
  EXPECT_EQ(channel.send({Channel<int>::create().value()}).error().code,
            ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace cowshed
