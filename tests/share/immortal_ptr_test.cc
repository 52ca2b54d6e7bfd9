#include <unordered_set>

#include <cowshed/share/immortal_ptr.h>

#include "share.h"

namespace cowshed {
namespace {

struct Value {
  int value = 1;
};
struct ImmortalNode : Value {
  explicit ImmortalNode(ImmortalPtr<const ImmortalNode> its_next) : next(its_next) {}
  ImmortalPtr<const ImmortalNode> next;
};

TEST(ImmortalPtr, IsUsedLikeASharedPtr) {
  const ImmortalNode node(nullptr);
  ImmortalPtr<const ImmortalNode> pointer(&node);
  const ImmortalPtr<const Value> base = pointer;
  EXPECT_TRUE(pointer);
  EXPECT_EQ(pointer->value, 1);
  EXPECT_EQ(&*base, &node);
  EXPECT_FALSE(pointer->next);
  EXPECT_EQ(std::unordered_set<ImmortalPtr<const ImmortalNode>>{pointer}.count(pointer), 1U);
  pointer.reset();
  EXPECT_EQ(pointer, nullptr);
}

TEST(ImmortalPtr, BecomesASharedPtrWithoutACount) {
  const ImmortalNode node(nullptr);
  const std::shared_ptr<const ImmortalNode> shared = ImmortalPtr<const ImmortalNode>(&node);
  EXPECT_EQ(shared.get(), &node);
  EXPECT_EQ(shared.use_count(), 0);
}

TEST(ImmortalPtr, Casts) {
  struct Shape {
    virtual ~Shape() = default;
  };
  struct Circle : Shape {};
  struct Square : Shape {};
  Circle circle;
  const ImmortalPtr<Shape> shape(&circle);
  EXPECT_EQ(static_pointer_cast<Circle>(shape).get(), &circle);
  EXPECT_EQ(dynamic_pointer_cast<Circle>(shape), shape);
  EXPECT_EQ(dynamic_pointer_cast<Square>(shape), nullptr);
  EXPECT_EQ(const_pointer_cast<Shape>(ImmortalPtr<const Shape>(shape)), shape);
  const ImmortalPtr<void> anything = shape;
  EXPECT_TRUE(anything);
  const std::shared_ptr<const Shape> shared = shape;
  EXPECT_EQ(shared.get(), &circle);
}

// What a std::shared_ptr in the arena does on a copy, and this one does not.
TEST(ImmortalPtr, CopiesAndDropsWriteNothingToFrozenPages) {
  Arena arena = Arena::create({.name = "nodes", .capacity = 64_MiB}).value();
  ImmortalPtr<const ImmortalNode> first;
  std::vector<std::shared_ptr<int>> counted;
  std::pmr::polymorphic_allocator<> allocator(arena.resource());
  for (int i = 0; i < 10000; ++i) {
    first = ImmortalPtr<const ImmortalNode>(arena.make<ImmortalNode>(first).value());
    counted.push_back(std::allocate_shared<int>(allocator, i));
  }
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  const std::size_t used = arena.stats().used;
  const auto immortal = run_in_child([&] {
    std::vector<ImmortalPtr<const ImmortalNode>> copies;
    for (auto node = first; node; node = node->next) copies.push_back(node);
    std::vector<std::shared_ptr<const ImmortalNode>> shared(copies.begin(), copies.end());
    copies.clear();
    shared.clear();
    return std::to_string(test::own_pages(arena.base(), used));
  });
  EXPECT_EQ(immortal.said, "0");
  const auto with_counts = run_in_child([&] {
    const auto copies = counted;
    return std::to_string(test::own_pages(arena.base(), used));
  });
  EXPECT_GT(std::stoi(with_counts.said), 10);  // the detector sees counts
  for (auto& pointer : counted) {
    new (&pointer) std::shared_ptr<int>;
  }  // never dropped
}

}  // namespace
}  // namespace cowshed
