#include <cowshed/base/type_id.h>
#include <cowshed/share/accounting/readable_type.h>
#include <cowshed/share/codec.h>
#include <cowshed/share/wire/content.h>
#include <cowshed/tests/share/share.h>

namespace app {
struct Rule {};
namespace {
struct Hidden {};
}  // namespace
}  // namespace app

namespace cowshed {

using namespace internal;

namespace {

struct Point {
  int x;
  int y;
  bool operator==(const Point&) const = default;
};

// Says itself how it travels.
class Named {
 public:
  explicit Named(std::string name) : name_(std::move(name)) {}
  const std::string& name() const { return name_; }
  bool operator==(const Named&) const = default;

 private:
  std::string name_;
};

// Has state, which a receiver's container would not have.
struct Order {
  bool descending = false;
  bool operator()(int a, int b) const { return descending ? b < a : a < b; }
};
static_assert(Codable<std::set<int, std::greater<>>> && !Codable<std::set<int, Order>>);
static_assert(!Codable<std::unordered_map<int, int, std::hash<int>, bool (*)(int, int)>>);

}  // namespace

template <>
struct Codec<Named> {
  static void encode(Encoder& to, const Named& named) { to.put(named.name()); }
  static Named decode(Decoder& from) { return Named(from.take<std::string>()); }
};

namespace {

using Everything =
    std::tuple<std::map<std::string, std::vector<int>>, std::optional<std::vector<std::string>>,
               std::variant<int, std::vector<std::string>>, std::pair<short, std::vector<bool>>,
               std::array<char, 3>, std::array<std::string, 2>, Point, std::vector<Point>,
               std::set<std::vector<int>>, std::deque<std::map<int, Point>>, std::filesystem::path,
               std::vector<Named>, std::u16string>;

const Everything everything = {{{"one", {1, 2, 3}}, {"", {}}},
                               {{"", "two"}},
                               std::vector<std::string>{"a", "b"},
                               {1, {true, false, true}},
                               {},
                               {"x", std::string("\0y", 2)},
                               {1, 2},
                               {{6, 7}, {8, 9}},
                               {{}, {1, 2}},
                               {{}, {{3, {4, 5}}}},
                               "/some/where",
                               {Named("n"), Named("m")},
                               u"wide"};

std::string encode(const Everything& all) {
  Encoder to;
  to.put(all);
  return to.finish().inline_bytes();
}

Everything decode(std::string bytes) {
  return Decoder(Content(std::move(bytes), FileDescriptor(), 0, {})).take<Everything>();
}

TEST(Codec, GivesBackWhatWasPut) { EXPECT_EQ(decode(encode(everything)), everything); }

TEST(Codec, ElementsWithoutElementsArrive) {
  const std::vector<std::array<std::string, 0>> empty(5);
  Encoder to;
  to.put(empty);
  EXPECT_EQ((Decoder(to.finish()).take_all<std::vector<std::array<std::string, 0>>>()), empty);
}

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
  Content content = to.finish();
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

static_assert(Codable<std::vector<std::map<std::string, std::optional<int>>>>);
static_assert(!Codable<int*> && !Codable<std::string_view> && !Codable<std::span<int>>);
static_assert(!Codable<std::vector<std::shared_ptr<int>>>);

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
    auto object = value_of(back.try_receive());
    EXPECT_EQ(object.erase("answer"), 1U);
    EXPECT_EQ(object, *each);
  }
  EXPECT_THAT(back.try_receive(), Fails(ErrorCode::would_block));
  EXPECT_THAT(there.send(small), Fails(ErrorCode::closed));
}

TEST(ObjectChannel, WhatItSendsIsCounted) {
  auto channel = Channel<std::vector<std::string>>::create({.name = "counted", .slots = 1}).value();
  ASSERT_TRUE(channel.send({"four", "five5"}));
  EXPECT_THAT(channel.try_send({"no room"}), Fails(ErrorCode::would_block));
  const auto types = sent_by("counted").types;
  ASSERT_EQ(types.size(), 1U);
  EXPECT_EQ(types[0].type, "vector<string>");
  EXPECT_EQ(types[0].kind, TransferKind::value);
  EXPECT_EQ(types[0].sent.messages, 1U);
  EXPECT_EQ(types[0].sent.bytes, 3 * sizeof(std::uint64_t) + 9);
}

TEST(ObjectChannel, WhatCannotBeDecodedIsAnError) {
  auto channel = make<Config>();
  ASSERT_TRUE(channel.internals().ByteChannel::send(std::vector<std::byte>(7), {}));
  EXPECT_THAT(channel.receive(), Fails(ErrorCode::bad_encoding));
  ASSERT_TRUE(channel.internals().ByteChannel::send(std::vector<std::byte>(9), {}));
  EXPECT_EQ(channel.receive().error().code, ErrorCode::bad_encoding) << "bytes are left over";
  EXPECT_THAT(channel.try_receive(), Fails(ErrorCode::would_block));
}

TEST(ObjectChannel, WhatHasDescriptorsIsRefused) {
  auto channel = Channel<std::vector<Channel<int>>>::create().value();
  EXPECT_THAT(channel.send({Channel<int>::create().value()}), Fails(ErrorCode::invalid_argument));
}

template <class T>
std::string readable() {
  return readable_type(type_name<T>());
}

TEST(ReadableType, LeavesOutWhatSaysNothing) {
  EXPECT_EQ(readable<int>(), "int");
  EXPECT_EQ(readable<unsigned long>(), "unsigned long");
  EXPECT_EQ(readable<std::string>(), "string");
  EXPECT_EQ(readable<std::u32string>(), "u32string");
  EXPECT_EQ(readable<app::Rule>(), "app::Rule");
  EXPECT_EQ(readable<app::Hidden>(), "app::Hidden");
  EXPECT_EQ(readable<std::vector<app::Rule>>(), "vector<app::Rule>");
  EXPECT_EQ(readable<std::vector<std::vector<std::string>>>(), "vector<vector<string>>");
  using Map = std::map<std::string, std::vector<long>>;
  EXPECT_EQ(readable<Map>(), "map<string, vector<long>>");
  using Rules = std::unordered_map<std::string, std::unique_ptr<app::Rule>>;
  EXPECT_EQ(readable<Rules>(), "unordered_map<string, unique_ptr<app::Rule>>");
}

TEST(ReadableType, KeepsWhatIsNoDefault) {
  EXPECT_EQ(readable_type("std::set<int, app::less>"), "set<int, app::less>");
  EXPECT_EQ(readable_type("std::set<int, std::less<int>, std::allocator<int> >"), "set<int>");
  EXPECT_EQ(readable_type("std::span<int, 18446744073709551615>"), "span<int>");  // of g++ 16
  EXPECT_EQ(readable_type("nostd::vector<int>"), "nostd::vector<int>");
  EXPECT_EQ(readable_type("std::function<void(int, std::vector<char>&)>"),
            "function<void(int, vector<char>&)>");
}

TEST(ReadableType, LeavesWhatItCannotRead) {
  for (const std::string odd : {"", "a<b", "a>b", "<", ">", ",", "std::vector<int", "a, b", "<>"})
    EXPECT_NO_THROW(readable_type(odd)) << odd;
  EXPECT_EQ(readable_type("std::vector<int"), "std::vector<int");
}

}  // namespace
}  // namespace cowshed
