#include <cereal/types/base_class.hpp>
#include <cereal/types/memory.hpp>
#include <cereal/types/polymorphic.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/vector.hpp>

#include <cowshed/share/cereal_codec.h>
#include <cowshed/tests/share/share.h>

namespace app {

struct Rule {
  std::string pattern;
  std::vector<int> weights;
  bool operator==(const Rule&) const = default;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(pattern, weights);
  }
};

struct Shape {
  virtual ~Shape() = default;
  virtual int area() const { return 0; }
  template <class Archive>
  void serialize(Archive&) {}
};
struct Square : Shape {
  int side = 0;
  int area() const override { return side * side; }
  template <class Archive>
  void serialize(Archive& archive) {
    archive(cereal::base_class<Shape>(this), side);
  }
};
struct Unregistered : Shape {};

using Shapes = std::vector<std::shared_ptr<Shape>>;

}  // namespace app

CEREAL_REGISTER_TYPE(app::Square)
template <>
struct cowshed::Codec<app::Shapes> : cowshed::CerealCodec<app::Shapes> {};

namespace cowshed {
namespace {

TEST(CerealCodec, ObjectsArriveWhole) {
  const app::Rule rule = {std::string(100'000, 's'), {1, 2, 3}};
  auto channel = Channel<app::Rule>::create().value();
  ASSERT_TRUE(channel.send(rule));
  EXPECT_EQ(channel.receive().value(), rule);
}

TEST(CerealCodec, PointersShareAndKeepTheirType) {
  const auto square = std::make_shared<app::Square>();
  square->side = 4;
  auto channel = Channel<app::Shapes>::create().value();
  ASSERT_TRUE(channel.send({square, nullptr, square}));
  const auto back = channel.receive().value();
  EXPECT_EQ(back[0]->area(), 16);
  EXPECT_EQ(back[0], back[2]);
  EXPECT_EQ(back[1], nullptr);
}

TEST(CerealCodec, WhatCerealRefusesIsAnErrorOfOneLine) {
  auto channel = Channel<app::Shapes>::create().value();
  EXPECT_THAT(channel.send({std::make_shared<app::Unregistered>()}),
              Fails(ErrorCode::invalid_argument,
                    AllOf(HasSubstr("app::Unregistered"), Not(HasSubstr("\n")))));
}

TEST(CerealCodec, TooFewBytesAreAnError) {
  auto channel = Channel<app::Rule>::create().value();
  const auto receive = [&](const std::string& bytes) {
    const std::uint64_t size = bytes.size();  // as a string is encoded
    std::vector<std::byte> message(sizeof size + size);
    std::memcpy(message.data(), &size, sizeof size);
    std::memcpy(message.data() + sizeof size, bytes.data(), size);
    EXPECT_TRUE(channel.internals().ByteChannel::send(message, {}));
    return channel.receive();
  };
  EXPECT_THAT(receive("abc"), Fails(ErrorCode::bad_encoding));
  EXPECT_EQ(receive(std::string(8, '\xff')).error().code, ErrorCode::bad_encoding) << "its length";
  EXPECT_EQ(receive(std::string(16, '\0')).value(), app::Rule{});
}

}  // namespace
}  // namespace cowshed
