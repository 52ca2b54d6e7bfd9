#include <cowshed/share/codec.h>
#include <cowshed/share/content.h>

#include "share.h"

namespace cowshed {
namespace {

using Everything =
    std::tuple<std::map<std::string, std::vector<int>>, std::optional<std::string>,
               std::variant<int, std::vector<std::string>>, std::vector<bool>, std::array<char, 3>>;

const Everything everything = {
    {{"one", {1, 2, 3}}, {"", {}}}, "text", std::vector<std::string>{"a", "b"}, {true, false}, {}};

std::string encode(const Everything& all) {
  Encoder to;
  to.put(all);
  return to.finish().inline_bytes();
}

Everything decode(std::string bytes) {
  return Decoder(internal::Content(std::move(bytes), Descriptor(), 0, {})).take<Everything>();
}

TEST(Codec, GivesBackWhatWasPut) { EXPECT_EQ(decode(encode(everything)), everything); }

TEST(Codec, BytesThatEndTooEarlyAreAnError) {
  const std::string bytes = encode(everything);
  for (std::size_t length = 0; length < bytes.size(); ++length)
    EXPECT_THROW(decode(bytes.substr(0, length)), std::runtime_error) << length;
}

// Nothing is allocated for what cannot be there.
TEST(Codec, ANumberBeyondTheBytesIsAnError) {
  const std::string bytes = encode(everything);
  for (std::size_t at = 0; at + 8 <= bytes.size(); ++at) {
    for (const std::uint64_t number : {~0ULL, 1ULL << 63U, 1ULL << 40U}) {
      std::string wrong = bytes;
      wrong.replace(at, sizeof number, reinterpret_cast<const char*>(&number), sizeof number);
      try {
        (void)decode(wrong);
      } catch (const std::runtime_error&) {
      }
    }
  }
  Encoder to;
  to.put_count(1ULL << 63U);
  EXPECT_THROW(Decoder(to.finish()).take<std::vector<int>>(), std::runtime_error);
}

TEST(Codec, ManyBytesLieInASealedFile) {
  std::vector<std::string> texts(300, std::string(1000, 'x'));
  texts.push_back(std::string(std::size_t{3} << 20U, 'y'));
  texts.emplace_back("last");
  Encoder to;
  to.put(texts).put(7);
  internal::Content content = to.finish();
  EXPECT_TRUE(content.file());
  EXPECT_EQ(content.view().size(), content.file_bytes());
  Decoder from(std::move(content));
  EXPECT_EQ(from.take<std::vector<std::string>>(), texts);
  EXPECT_EQ(from.take<int>(), 7);
}

// Such a message has descriptors and no bytes.
TEST(Codec, ChannelsAreElementsToo) {
  const auto channel = Channel<int>::create().value();
  using Channels = std::pair<std::vector<Channel<int>>, std::optional<Channel<int>>>;
  Encoder to;
  to.put(Channels{{channel, channel}, channel});
  Channels channels = Decoder(to.finish()).take<Channels>();
  ASSERT_TRUE(channels.first.at(1).send(5));
  EXPECT_EQ(channels.second->try_receive().value(), 5);
}

TEST(Codec, AChannelThatIsRefusedLeavesNoDescriptorOpen) {
  const auto channel = Channel<int>::create().value();
  const std::size_t before = test::open_descriptors();
  {
    Encoder to;
    to.put(channel);
    Decoder from(to.finish());
    EXPECT_THROW((void)from.take<Channel<long>>(), std::runtime_error);
  }
  EXPECT_EQ(test::open_descriptors(), before);
  {
    Encoder to;
    to.put_descriptor(channel.descriptors().segment);  // and no other
    Decoder from(to.finish());
    EXPECT_THROW((void)from.take<Channel<int>>(), std::runtime_error);
  }
  EXPECT_EQ(test::open_descriptors(), before);
}

TEST(Codec, AFileWithoutSealsIsNoMessage) {
  internal::Content content;
  const std::string large(std::size_t{1} << 20U, 'x');
  content.append(large.data(), large.size());
  content.append(large.data(), large.size());  // and not finish(): no seals
  const auto bytes = content.file_bytes();
  EXPECT_GT(bytes, 0U);
  EXPECT_THROW(internal::Content("", Descriptor(dup(content.file().get())), bytes, {}),
               std::runtime_error);
}

static_assert(Codable<std::vector<std::map<std::string, std::optional<int>>>>);
static_assert(!Codable<int*> && !Codable<std::string_view> && !Codable<std::span<int>>);
static_assert(!Codable<std::vector<std::shared_ptr<int>>>);

}  // namespace
}  // namespace cowshed
