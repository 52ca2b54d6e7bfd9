#include <array>
#include <bitset>
#include <cereal/types/array.hpp>
#include <cereal/types/base_class.hpp>
#include <cereal/types/bitset.hpp>
#include <cereal/types/chrono.hpp>
#include <cereal/types/deque.hpp>
#include <cereal/types/list.hpp>
#include <cereal/types/map.hpp>
#include <cereal/types/memory.hpp>
#include <cereal/types/optional.hpp>
#include <cereal/types/polymorphic.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/tuple.hpp>
#include <cereal/types/unordered_map.hpp>
#include <cereal/types/valarray.hpp>
#include <cereal/types/variant.hpp>
#include <cereal/types/vector.hpp>
#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>

#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/serialize.h>

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

struct Config {
  int version = 0;
  std::vector<Rule> rules;
  std::map<std::string, double> limits;
  bool operator==(const Config&) const = default;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(version, rules, limits);
  }
};

struct Nothing {
  bool operator==(const Nothing&) const = default;
  template <class Archive>
  void serialize(Archive&) {}
};

struct Empty {
  bool operator==(const Empty&) const = default;
};

struct Link {
  int value = 0;
  std::unique_ptr<Link> next;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(value, next);
  }
};

struct Small {
  char letter = 0;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(letter);
  }
};
struct Large {
  std::array<std::string, 8> texts;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(texts);
  }
};
struct Two {
  std::shared_ptr<Small> small;
  std::shared_ptr<Large> large;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(small, large);
  }
};

struct Thrower {
  template <class Archive>
  void serialize(Archive&) {
    throw std::runtime_error("two\nlines");
  }
};

// A count of its own, after a vector whose elements are larger.
struct OwnCount {
  std::vector<double> numbers;
  std::string letters;
  template <class Archive>
  void save(Archive& archive) const {
    archive(numbers, cereal::make_size_tag(letters.size()));
    for (const char letter : letters) {
      archive(letter);
    }
  }
  template <class Archive>
  void load(Archive& archive) {
    std::size_t count = 0;
    archive(numbers, cereal::make_size_tag(count));
    letters.resize(count);
    for (char& letter : letters) {
      archive(letter);
    }
  }
};

struct Shape {
  virtual ~Shape() = default;
  virtual int area() const = 0;
};
struct Square : Shape {
  int side = 0;
  int area() const override { return side * side; }
  template <class Archive>
  void serialize(Archive& archive) {
    archive(side);
  }
};
struct Unregistered : Shape {
  int area() const override { return 0; }
};

}  // namespace app

CEREAL_REGISTER_TYPE(app::Square)
CEREAL_REGISTER_POLYMORPHIC_RELATION(app::Shape, app::Square)

namespace cowshed {
namespace {

using testing::HasSubstr;

template <class T>
void expect_same_back(const T& object) {
  const auto bytes = encode(object);
  ASSERT_TRUE(bytes) << bytes.error().message;
  const auto back = decode<T>(*bytes);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_TRUE(*back == object);
  const auto counted = encode_counted(object);
  ASSERT_TRUE(counted);
  EXPECT_EQ(counted->bytes, *bytes) << "counting changes nothing";
  const auto sum =
      std::accumulate(counted->paths.begin(), counted->paths.end(), std::uint64_t{0},
                      [](std::uint64_t all, const TypePath& path) { return all + path.own_bytes; });
  EXPECT_EQ(sum, bytes->size()) << "every byte is some type's";
  for (std::size_t size = 0; size < bytes->size(); ++size) {
    EXPECT_FALSE(decode<T>(std::span(*bytes).first(size))) << size << " of " << bytes->size();
  }
}

app::Config some_config(int rules = 3) {
  app::Config config{7, {}, {{"cpu", 0.5}, {"memory", 1e9}}};
  for (int i = 0; i < rules; ++i) {
    config.rules.push_back({std::string(20, 'p'), {1, 2, 3}});
  }
  return config;
}

TEST(Serialize, WhatGoesInComesOut) {
  expect_same_back(42);
  expect_same_back(true);
  expect_same_back(std::string("text"));
  expect_same_back(std::string());
  expect_same_back(some_config());
  expect_same_back(std::vector<bool>{true, false, true});
  expect_same_back(std::array<bool, 3>{true, false, true});
  expect_same_back(std::vector<double>{1, 2, std::numeric_limits<double>::infinity()});
  expect_same_back(std::u32string(U"wide"));
  expect_same_back(std::deque<std::string>{"a", "b"});
  expect_same_back(std::list<std::vector<char>>{{'x'}, {}});
  expect_same_back(std::unordered_map<std::string, std::optional<int>>{{"a", 1}, {"b", {}}});
  expect_same_back(std::variant<int, std::string>("variant"));
  expect_same_back(std::tuple<int, std::string, double>(1, "two", 3));
  expect_same_back(std::bitset<77>(0x123456789abc));
  expect_same_back(std::chrono::nanoseconds(5));
}

TEST(Serialize, ObjectsWithoutBytes) {
  expect_same_back(app::Nothing{});
  expect_same_back(app::Empty{});
  expect_same_back(std::vector<app::Nothing>(100));
  expect_same_back(std::vector<app::Empty>(100));
  expect_same_back(std::vector<std::array<app::Empty, 3>>(10));
}

TEST(Serialize, ACountOfTheUsersOwn) {
  const app::OwnCount own{{1, 2, 3}, "letters"};
  const auto back = decode<app::OwnCount>(*encode(own));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->letters, "letters");
}

TEST(Serialize, PointersShare) {
  const auto rule = std::make_shared<app::Rule>(app::Rule{"shared", {}});
  const std::vector<std::shared_ptr<app::Rule>> rules{rule, rule, nullptr, rule};
  const auto encoded = encode_counted(rules);
  ASSERT_TRUE(encoded);
  const auto back = decode<std::vector<std::shared_ptr<app::Rule>>>(encoded->bytes);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ((*back)[0]->pattern, "shared");
  EXPECT_EQ((*back)[0], (*back)[1]);
  EXPECT_EQ((*back)[0], (*back)[3]);
  EXPECT_EQ((*back)[2], nullptr);
  for (const TypePath& path : encoded->paths) {
    if (path.path.ends_with("→ app::Rule")) {
      EXPECT_EQ(path.objects, 1U);
    }
  }
}

TEST(Serialize, PolymorphicTypes) {
  std::unique_ptr<app::Shape> shape;
  auto square = std::make_unique<app::Square>();
  square->side = 4;
  shape = std::move(square);
  const auto back = decode<std::unique_ptr<app::Shape>>(*encode(shape));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ((*back)->area(), 16);
  shape = std::make_unique<app::Unregistered>();
  const auto refused = encode(shape);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(refused.error().message, HasSubstr("app::Unregistered"));
  EXPECT_THAT(refused.error().message, testing::Not(HasSubstr("\n")));
}

TEST(Serialize, AReferenceGoesAsOne) {
  auto arena = Arena::create({.name = "ref", .capacity = 64_MiB});
  ASSERT_TRUE(arena);
  const auto ref = publish(static_cast<const app::Small*>(*arena->make<app::Small>()));
  ASSERT_TRUE(ref);
  const std::vector<Ref<app::Small>> refs{*ref, {}};
  const auto encoded = encode_counted(refs);
  ASSERT_TRUE(encoded);
  EXPECT_EQ(decode<std::vector<Ref<app::Small>>>(encoded->bytes).value(), refs);
  ASSERT_EQ(encoded->paths.size(), 2U);
  EXPECT_THAT(encoded->paths[1].path, HasSubstr("Ref<app::Small>"));
  EXPECT_EQ(encoded->paths[1].bytes, 32U);
}

TEST(Serialize, CountsByTypePathLargestFirst) {
  const auto encoded = encode_counted(some_config(100));
  ASSERT_TRUE(encoded);
  std::string text;
  for (const TypePath& path : encoded->paths) {
    text +=
        path.path + ": " + std::to_string(path.objects) + " " + std::to_string(path.bytes) + "\n";
  }
  // A string or vector has 8 bytes of its own, for its length.
  EXPECT_EQ(text,
            "app::Config: 1 4869\n"
            "app::Config → vector<app::Rule>: 1 4808\n"
            "app::Config → vector<app::Rule> → app::Rule: 100 4800\n"
            "app::Config → vector<app::Rule> → app::Rule → string: 100 2800\n"
            "app::Config → vector<app::Rule> → app::Rule → vector<int>: 100 2000\n"
            "app::Config → vector<app::Rule> → app::Rule → vector<int> → int: 300 1200\n"
            "app::Config → map<string, double>: 1 49\n"
            "app::Config → map<string, double> → string: 2 25\n"
            "app::Config → map<string, double> → double: 2 16\n"
            "app::Config → int: 1 4\n");
}

app::Link list_of(int length) {
  app::Link list;
  for (int i = 1; i < length; ++i) {
    auto rest = std::make_unique<app::Link>(std::move(list));
    list = {};
    list.next = std::move(rest);
  }
  return list;
}

TEST(Serialize, AListIsOnePath) {
  const auto encoded = encode_counted(list_of(100));
  ASSERT_TRUE(encoded) << encoded.error().message;
  ASSERT_EQ(encoded->paths.size(), 4U) << "list, pointer, int, and whether there is a next one";
  EXPECT_EQ(encoded->paths[0].objects, 100U);
}

TEST(Serialize, TooDeepIsAnErrorAndNoCrash) {
  const auto encoded = encode(list_of(499));
  ASSERT_TRUE(encoded) << encoded.error().message;
  EXPECT_TRUE(decode<app::Link>(*encoded));
  const auto refused = encode(list_of(600));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("more than 1000 objects inside one another"));
  // An encoding of more, by hand: a value, and that there is a next one.
  std::vector<std::byte> deep(encoded->begin(), encoded->begin() + 8);
  for (int i = 0; i < 1'000'000; ++i) {
    deep.insert(deep.end(), {{}, {}, {}, {}, std::byte{1}});
  }
  const auto back = decode<app::Link>(deep);
  ASSERT_FALSE(back);
  EXPECT_THAT(back.error().message, HasSubstr("more than 1000 objects inside one another"));
}

TEST(Serialize, WhatAUsersFunctionThrowsIsAnError) {
  const auto refused = encode(app::Thrower{});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "app::Thrower cannot be encoded: two lines");
}

TEST(Decode, AnotherTypeIsRefused) {
  const auto bytes = encode(some_config());
  const auto other = decode<app::Rule>(*bytes);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::wrong_type);
  EXPECT_THAT(other.error().message, HasSubstr("encoding of app::Rule"));
}

TEST(Decode, BytesLeftOverAreAnError) {
  auto bytes = encode(5).value();
  bytes.push_back({});
  const auto back = decode<int>(bytes);
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error().code, ErrorCode::bad_encoding);
  EXPECT_THAT(back.error().message, HasSubstr("left over"));
}

TEST(Decode, ABoolIsTrueOrFalse) {
  auto bytes = encode(true).value();
  bytes.back() = std::byte{2};
  EXPECT_FALSE(decode<bool>(bytes));
  auto array = encode(std::array<bool, 3>{}).value();
  array.back() = std::byte{2};
  EXPECT_FALSE((decode<std::array<bool, 3>>(array)));
}

// Records the most that was asked for at once.
std::size_t most_allocated = 0;
template <class T>
struct Recording {
  using value_type = T;
  Recording() = default;
  template <class U>
  explicit(false) Recording(const Recording<U>&) {}
  T* allocate(std::size_t count) {
    most_allocated = std::max(most_allocated, count * sizeof(T));
    return std::allocator<T>().allocate(count);
  }
  void deallocate(T* block, std::size_t count) { std::allocator<T>().deallocate(block, count); }
  bool operator==(const Recording&) const = default;
};

template <class Container>
void expect_counts_checked(const Container& container) {
  for (const std::uint64_t count :
       {std::uint64_t{1} << 63U, ~std::uint64_t{0}, std::uint64_t{1} << 32U, std::uint64_t{33}}) {
    auto bytes = encode(container).value();
    std::memcpy(bytes.data() + 8, &count, sizeof count);
    most_allocated = 0;
    const auto back = decode<Container>(bytes);
    ASSERT_FALSE(back) << count;
    EXPECT_EQ(back.error().code, ErrorCode::bad_encoding);
    EXPECT_THAT(back.error().message, HasSubstr(std::to_string(count) + " more are announced"));
    EXPECT_EQ(most_allocated, 0U) << "refused before it is allocated";
  }
}

TEST(Decode, ACountBeyondWhatIsLeftIsRefusedBeforeAllocating) {
  expect_counts_checked(std::vector<int, Recording<int>>(32));
  expect_counts_checked(std::vector<double, Recording<double>>(32));
  using Text = std::basic_string<char, std::char_traits<char>, Recording<char>>;
  expect_counts_checked(Text(32, 'x'));
  using Wide = std::basic_string<char32_t, std::char_traits<char32_t>, Recording<char32_t>>;
  expect_counts_checked(Wide(32, U'x'));
  expect_counts_checked(std::vector<app::Small, Recording<app::Small>>(32));
  expect_counts_checked(std::list<app::Small, Recording<app::Small>>(32));
}

TEST(Decode, APointerToAnotherTypeIsRefused) {
  const app::Two two{std::make_shared<app::Small>(), std::make_shared<app::Large>()};
  auto bytes = encode(two).value();
  // After the type and the first pointer (4) with its letter, the second pointer says it is the
  // first again.
  const std::uint32_t first = 1;
  bytes.resize(8 + 4 + 1 + 4);
  std::memcpy(bytes.data() + 8 + 4 + 1, &first, sizeof first);
  const auto back = decode<app::Two>(bytes);
  ASSERT_FALSE(back);
  EXPECT_THAT(back.error().message, HasSubstr("a pointer to what is not there"));
}

struct Everything {
  app::Config config = some_config();
  app::Two two{std::make_shared<app::Small>(), std::make_shared<app::Large>()};
  std::variant<int, std::string> variant = "text";
  std::optional<bool> optional = true;
  std::shared_ptr<app::Shape> shape = std::make_shared<app::Square>();
  std::vector<std::unique_ptr<app::Link>> links;
  std::unordered_map<std::string, std::vector<app::Nothing>> map{{"a", {{}, {}}}, {"b", {}}};
  std::bitset<10> bits = 5;
  std::valarray<double> numbers = {1, 2, 3};
  template <class Archive>
  void serialize(Archive& archive) {
    archive(config, two, variant, optional, shape, links, map, bits, numbers);
  }
};

TEST(Decode, GarbageIsAnErrorOrAnObject) {
  Everything everything;
  everything.links.push_back(std::make_unique<app::Link>(list_of(3)));
  const auto good = encode(everything).value();
  ASSERT_TRUE(decode<Everything>(good));
  std::mt19937 random(1);  // NOLINT(cert-msc51-cpp): the same each time
  int refused = 0;
  constexpr int kTries = 20000;
  for (int i = 0; i < kTries; ++i) {
    auto bytes = good;
    const auto at = [&] { return 8 + random() % (bytes.size() - 8); };
    switch (random() % 4) {
      case 0: bytes.resize(at()); break;
      case 1: bytes[at()] ^= std::byte(1U << random() % 8); break;
      case 2: bytes[at()] = std::byte(random()); [[fallthrough]];
      default:
        for (unsigned k = random() % 8; k > 0; --k) {
          bytes[at()] = random() % 2 == 0 ? std::byte{0xff} : std::byte(random());
        }
    }
    const auto back = decode<Everything>(bytes);
    if (!back) {
      ++refused;
      EXPECT_EQ(back.error().code, ErrorCode::bad_encoding);
      EXPECT_THAT(back.error().message, testing::Not(HasSubstr("\n")));
    }
  }
  EXPECT_GT(refused, kTries / 10);
}

}  // namespace
}  // namespace cowshed
