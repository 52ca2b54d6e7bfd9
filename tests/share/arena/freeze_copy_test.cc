#include <cowshed/share/freeze_copy.h>
#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

struct Node {
  std::string name;
  std::vector<std::shared_ptr<Node>> next;
  std::weak_ptr<Node> parent;
  const Node* twin = nullptr;
};
struct FrozenNode {
  std::pmr::string name;
  std::pmr::vector<ImmortalPtr<const FrozenNode>> next;
  ImmortalPtr<const FrozenNode> parent;
  ImmortalPtr<const FrozenNode> twin;
};

struct Link {  // of a list
  std::unique_ptr<Link> next;
  std::uint64_t value = 0;
};
struct FrozenLink {
  ImmortalPtr<const FrozenLink> next;
  std::uint64_t value;
};

// Pointers into its own vector.
using Table = std::pair<std::vector<Node>, std::vector<const Node*>>;

struct Expression {
  virtual ~Expression() = default;
};
struct Number : Expression {
  explicit Number(int its_value) : value(its_value) {}
  int value;
};
struct Sum : Expression {
  std::shared_ptr<Expression> left;
  std::shared_ptr<Expression> right;
};
struct FrozenExpression {
  FrozenExpression() = default;
  FrozenExpression(const FrozenExpression&) = delete;
  FrozenExpression& operator=(const FrozenExpression&) = delete;
  virtual ~FrozenExpression() = default;
  virtual int evaluate() const = 0;
};
struct FrozenNumber final : FrozenExpression {
  explicit FrozenNumber(int its_value) : value(its_value) {}
  int evaluate() const override { return value; }
  int value;
};
struct FrozenSum final : FrozenExpression {
  using Part = ImmortalPtr<const FrozenExpression>;
  FrozenSum(Part its_left, Part its_right) : left(its_left), right(its_right) {}
  int evaluate() const override { return left->evaluate() + right->evaluate(); }
  Part left;
  Part right;
};
struct Unknown : Expression {};

struct Animal {
  virtual ~Animal() = default;
  int legs = 4;
};
struct Bird : Animal {};

struct Bomb {};

struct Rounded {
  double value;
  bool operator<(const Rounded& other) const { return value < other.value; }
};

// Orders and hashes of pointers, which look at the objects.
struct ById {
  bool operator()(const auto& a, const auto& b) const { return a->id < b->id; }
};
struct IdHash {
  std::size_t operator()(const auto& a) const { return static_cast<std::size_t>(a->id); }
};
struct SameId {
  bool operator()(const auto& a, const auto& b) const { return a->id == b->id; }
};
struct Person {
  int id = 0;
  std::set<std::shared_ptr<Person>, ById> friends;
};
struct FrozenPerson {
  int id;
  std::pmr::set<ImmortalPtr<const FrozenPerson>, ById> friends;
};
struct FrozenPinned : FrozenPerson {  // cannot be moved
  explicit FrozenPinned(FrozenPerson&& person) : FrozenPerson(std::move(person)) {}
  FrozenPinned(const FrozenPinned&) = delete;
  FrozenPinned& operator=(const FrozenPinned&) = delete;
  ~FrozenPinned() = default;
};
struct Pinned : Person {};
template <class K>
struct Last {  // compares the last characters, if it has that state
  bool last = false;
  Last() = default;
  explicit Last(bool has_state) : last(has_state) {}
  template <class Other>
  explicit Last(const Last<Other>& other) : last(other.last) {}
  bool operator()(const K& a, const K& b) const {
    return last ? a.back() < b.back() : a.front() < b.front();
  }
};

}  // namespace

template <>
struct FreezeTraits<Node> {
  using frozen = FrozenNode;
  static FrozenNode freeze(const Node& from, FreezeContext& context) {
    return {context.copy(from.name), context.copy(from.next), context.copy(from.parent),
            context.copy(from.twin)};
  }
};
template <>
struct FreezeTraits<Rounded> {
  using frozen = int;
  static int freeze(const Rounded& from, FreezeContext&) { return static_cast<int>(from.value); }
};
template <>
struct FreezeTraits<Person> {
  using frozen = FrozenPerson;
  static FrozenPerson freeze(const Person& from, FreezeContext& context) {
    return {from.id, context.copy(from.friends)};
  }
};
template <>
struct FreezeTraits<Pinned> {
  using frozen = FrozenPinned;
  static FrozenPinned freeze(const Pinned& from, FreezeContext& context) {
    return FrozenPinned(context.copy<Person>(from));
  }
};
template <>
struct FreezeTraits<Link> {
  using frozen = FrozenLink;
  static FrozenLink freeze(const Link& from, FreezeContext& context) {
    return {context.copy(from.next), from.value};
  }
};
template <>
struct FreezeTraits<Expression> {
  using frozen = FrozenExpression;
  static ImmortalPtr<const FrozenExpression> pointer(const Expression& from,
                                                     FreezeContext& context);
};
template <>
struct FreezeTraits<Number> {
  using frozen = FrozenNumber;
  static FrozenNumber freeze(const Number& from, FreezeContext&) {
    return FrozenNumber(from.value);
  }
};
template <>
struct FreezeTraits<Sum> {
  using frozen = FrozenSum;
  static FrozenSum freeze(const Sum& from, FreezeContext& context) {
    return {context.copy(from.left), context.copy(from.right)};
  }
};
inline ImmortalPtr<const FrozenExpression> FreezeTraits<Expression>::pointer(
    const Expression& from, FreezeContext& context) {
  if (const auto* number = dynamic_cast<const Number*>(&from)) return context.pointer(number);
  if (const auto* sum = dynamic_cast<const Sum*>(&from)) return context.pointer(sum);
  throw std::invalid_argument("unknown expression");
}
template <>
struct FreezeTraits<Animal> {
  using frozen = int;
  static int freeze(const Animal& from, FreezeContext&) { return from.legs; }
};
template <>
struct FreezeTraits<Bomb> {
  using frozen = int;
  static int freeze(const Bomb&, FreezeContext&) { throw std::runtime_error("bomb"); }
};

namespace {

TEST(FreezeCopy, ContainersAreCopiedInDepth) {
  const Arena arena = make_arena();
  const std::string text(100, 'x');
  const std::map<std::string, std::vector<std::string>> map = {{text, {text, text}}, {"b", {}}};
  const auto* frozen_map = freeze_copy(arena, map).value();
  static_assert(
      std::is_same_v<std::remove_pointer_t<decltype(frozen_map)>,
                     const std::pmr::map<std::pmr::string, std::pmr::vector<std::pmr::string>>>);
  EXPECT_TRUE(arena.contains(frozen_map));
  const auto& [key, values] = *frozen_map->rbegin();
  EXPECT_EQ(key, text.c_str());
  EXPECT_TRUE(arena.contains(key.data()));
  ASSERT_EQ(values.size(), 2U);
  EXPECT_TRUE(arena.contains(values[1].data()));

  using Anything = std::variant<int, std::string, std::vector<bool>>;
  using Row = std::tuple<std::optional<std::string>, std::array<std::string, 2>, Anything>;
  std::unordered_map<std::string, Row> rows;
  rows.emplace(text, Row(text, {"a", text}, text));
  rows.emplace("bits", Row(std::nullopt, {}, std::vector<bool>{true, false}));
  rows.emplace("int", Row(std::nullopt, {}, 7));
  const auto* frozen_rows = freeze_copy(arena, rows).value();
  const auto& row = frozen_rows->at(std::pmr::string(text));
  EXPECT_TRUE(arena.contains(std::get<0>(row)->data()));
  EXPECT_TRUE(arena.contains(std::get<1>(row)[1].data()));
  EXPECT_TRUE(arena.contains(std::get<1>(std::get<2>(row)).data()));
  EXPECT_EQ(std::get<2>(std::get<2>(frozen_rows->at("bits"))), (std::pmr::vector<bool>{1, 0}));
  EXPECT_EQ(std::get<0>(std::get<2>(frozen_rows->at("int"))), 7);

  const std::unordered_multiset<std::string> bag = {text, text, "c"};
  EXPECT_EQ(freeze_copy(arena, bag).value()->count(std::pmr::string(text)), 2U);
  const std::set<int, std::greater<>> set = {1, 2, 3};
  EXPECT_EQ(*freeze_copy(arena, set).value()->begin(), 3);
  const std::list<std::deque<std::pair<int, std::string>>> list = {{{1, text}}, {}};
  EXPECT_TRUE(arena.contains(freeze_copy(arena, list).value()->front()[0].second.data()));
  const std::vector<std::array<int, 100000>> big(2);
  EXPECT_EQ(freeze_copy(arena, big).value()->size(), 2U);
}

TEST(FreezeCopy, IdentityAndCyclesAreKept) {
  const Arena arena = make_arena();
  auto root = std::make_shared<Node>();
  root->name = std::string(50, 'r');
  auto shared = std::make_shared<Node>();
  root->next = {shared, shared, nullptr};
  shared->next = {root};  // a cycle
  shared->parent = root;
  shared->twin = shared.get();
  const FrozenNode* frozen = freeze_copy(arena, root).value();
  shared->next.clear();
  root.reset();
  shared.reset();
  EXPECT_EQ(frozen->name, std::pmr::string(50, 'r'));
  ASSERT_EQ(frozen->next.size(), 3U);
  EXPECT_EQ(frozen->next[0], frozen->next[1]);
  EXPECT_EQ(frozen->next[2], nullptr);
  const FrozenNode& copy = *frozen->next[0];
  EXPECT_TRUE(arena.contains(&copy));
  EXPECT_EQ(copy.next[0].get(), frozen);
  EXPECT_EQ(copy.parent.get(), frozen);
  EXPECT_EQ(copy.twin.get(), &copy);
  EXPECT_EQ(copy.next[0]->parent, nullptr);
}

TEST(FreezeCopy, KeysAreComparedByTheObjectsBehindTheirPointers) {
  const Arena arena = make_arena();
  constexpr int kCount = 100;
  Pinned root;
  std::unordered_set<std::shared_ptr<Person>, IdHash, SameId> hashed;
  std::map<std::shared_ptr<Person>, std::shared_ptr<Person>, ById> ordered;
  auto previous = std::make_shared<Person>(Person{kCount, {}});
  for (int id = 0; id < kCount; ++id) {
    const auto person = std::make_shared<Person>(Person{id, {previous}});
    previous->friends.insert(person);  // a cycle
    root.friends.insert(person);
    hashed.insert(person);
    ordered[person] = previous;
    previous = person;
  }
  const auto& people = static_cast<const Person&>(root);
  const FrozenPerson* frozen = freeze_copy(arena, people).value();
  ASSERT_EQ(frozen->friends.size(), kCount);
  EXPECT_EQ((*frozen->friends.begin())->id, 0);
  EXPECT_EQ((*frozen->friends.begin())->friends.size(), 2U);
  const ImmortalPtr<const FrozenPerson> last = *frozen->friends.rbegin();
  EXPECT_EQ(last->id, kCount - 1);
  EXPECT_TRUE(arena.contains(&*last->friends.begin()));
  EXPECT_EQ((*last->friends.begin())->friends.count(last), 1U);

  const auto* frozen_hashed = freeze_copy(arena, hashed).value();
  EXPECT_EQ(frozen_hashed->size(), kCount);
  EXPECT_EQ(frozen_hashed->count(last), 1U);
  const auto* frozen_ordered = freeze_copy(arena, ordered).value();
  EXPECT_EQ(frozen_ordered->size(), kCount);
  EXPECT_EQ(frozen_ordered->at(last)->id, kCount - 2);

  const auto before = arena.stats().live_allocations;
  EXPECT_THAT(freeze_copy(arena, root), Fails(ErrorCode::invalid_argument, "noexcept move"));
  EXPECT_EQ(arena.stats().live_allocations, before);
  for (const auto& person : hashed) person->friends.clear();
  previous->friends.clear();
}

TEST(FreezeCopy, NoElementIsLostToAnotherOrder) {
  const Arena arena = make_arena();
  const std::set<std::string, Last<std::string>> texts({"ab", "ac"}, Last<std::string>(true));
  EXPECT_EQ(freeze_copy(arena, texts).value()->size(), 2U);
  const std::set<Rounded> alike = {{1.2}, {1.4}};
  EXPECT_THAT(freeze_copy(arena, alike), Fails(ErrorCode::invalid_argument, "would be lost"));
}

TEST(FreezeCopy, TheRootItselfHasIdentity) {
  const Arena arena = make_arena();
  Node root;
  root.twin = &root;
  const FrozenNode* frozen = freeze_copy(arena, root).value();
  EXPECT_EQ(frozen->twin.get(), frozen);
  EXPECT_EQ(freeze_copy(arena, std::shared_ptr<Node>()).value(), nullptr);
  std::weak_ptr<Node> expired = std::make_shared<Node>();
  EXPECT_EQ(freeze_copy(arena, expired).value(), nullptr);
}

// The copy of the vector would have that element once more.
TEST(FreezeCopy, PointersToAVectorsElementsAreRefused) {
  const Arena arena = make_arena();
  Table table;
  table.first.resize(100);
  EXPECT_TRUE(freeze_copy(arena, table));
  table.second = {&table.first[7]};
  const auto before = arena.stats().live_allocations;
  EXPECT_THAT(freeze_copy(arena, table),
              Fails(ErrorCode::invalid_argument, "an element of a vector of"));
  EXPECT_EQ(arena.stats().live_allocations, before);
}

TEST(FreezeCopy, PolymorphicObjectsBecomeWhatTheirTraitsSay) {
  const Arena arena = make_arena();
  auto sum = std::make_shared<Sum>();
  sum->left = sum->right = std::make_shared<Number>(21);
  const std::shared_ptr<Expression> root = sum;
  const FrozenExpression* frozen = freeze_copy(arena, root).value();
  EXPECT_EQ(frozen->evaluate(), 42);
  const auto* frozen_sum = dynamic_cast<const FrozenSum*>(frozen);
  ASSERT_NE(frozen_sum, nullptr);
  EXPECT_EQ(frozen_sum->left, frozen_sum->right);

  const std::unique_ptr<Animal> sliced = std::make_unique<Bird>();
  EXPECT_THAT(freeze_copy(arena, sliced), Fails(ErrorCode::invalid_argument, "derived object"));
  EXPECT_EQ(*freeze_copy(arena, std::make_unique<Animal>()).value(), 4);
}

TEST(FreezeCopy, AMillionLinksNeedNoStack) {
  const Arena arena = make_arena(256_MiB);
  constexpr std::uint64_t kLinks = 1000000;
  std::unique_ptr<Link> first;
  for (std::uint64_t i = 0; i < kLinks; ++i) {
    auto link = std::make_unique<Link>();
    link->value = i;
    link->next = std::move(first);
    first = std::move(link);
  }
  const FrozenLink* frozen = freeze_copy(arena, first).value();
  std::uint64_t count = 0;
  for (const FrozenLink* link = frozen; link != nullptr; link = link->next.get())
    ASSERT_EQ(link->value, kLinks - ++count);
  EXPECT_EQ(count, kLinks);
  EXPECT_EQ(arena.stats().live_allocations, kLinks);
  while (first != nullptr) first = std::move(first->next);
}

TEST(FreezeCopy, WhatFailsLeavesNothingInTheArena) {
  Arena arena = make_arena(4_MiB);
  auto root = std::make_shared<Node>();
  for (int i = 0; i < 100; ++i) {
    root->next.push_back(std::make_shared<Node>());
    root->next.back()->name = std::string(100000, 'n');
  }
  EXPECT_THAT(freeze_copy(arena, root), Fails(ErrorCode::capacity_exceeded));
  EXPECT_EQ(arena.stats().live_allocations, 0U);

  const std::vector<std::pair<std::string, Bomb>> bombs(1, {std::string(100, 'b'), Bomb()});
  EXPECT_THROW((void)freeze_copy(arena, bombs), std::runtime_error);
  const std::shared_ptr<Expression> unknown = std::make_shared<Unknown>();
  EXPECT_THROW((void)freeze_copy(arena, unknown), std::invalid_argument);
  EXPECT_EQ(arena.stats().live_allocations, 0U);

  ASSERT_TRUE(arena.freeze());
  EXPECT_THAT(freeze_copy(arena, root->next), Fails(ErrorCode::arena_frozen));
}

}  // namespace
}  // namespace cowshed
