// Arenas that a worker builds and its parent has, the same under every method.

#include <tuple>

#include <cowshed/share/map.h>

#include "../support/image_objects.h"
#include "every_method.h"
#include "share.h"

namespace cowshed {
namespace {

using LaunchArenas = test::EveryMethod;
using test::end_of;
using test::inode_at;
using test::make_nodes;
using test::Node;

COWSHED_EVERY_METHOD(LaunchArenas);

struct Place {
  std::uintptr_t address;
  ino_t inode;
};

// With one node, which is published.
std::pair<Arena, Ref<Node>> make_result(bool frozen = true) {
  Arena arena = make_arena("result");
  const auto ref = value_of(publish(make_nodes(arena, 1)));
  if (frozen && !arena.freeze()) throw std::runtime_error("not frozen");
  return {std::move(arena), ref};
}

constexpr std::uint64_t kNodes = 100'000;

// Under the same name in all workers.
std::tuple<Arena, Ref<Node>, Place> build(const Worker& self) {
  Arena arena = make_arena("result");
  const Node* nodes = make_nodes(arena, kNodes + static_cast<std::uint64_t>(self.rank));
  const auto ref = value_of(publish("nodes", nodes));
  if (!arena.freeze()) throw std::runtime_error("not frozen");
  return {std::move(arena), ref, Place{reinterpret_cast<std::uintptr_t>(nodes), inode_at(nodes)}};
}

TEST_P(LaunchArenas, AResultIsUsedInPlaceAfterItsWorkerHasEnded) {
  auto workers = value_of(start<build>(with({.count = 3})));
  auto results = value_of(workers.wait());
  ASSERT_EQ(results.size(), 3U);
  for (auto& result : results) {
    ASSERT_TRUE(result.value) << result.error;
    EXPECT_EQ(kill(result.pid, 0), -1) << "it has not ended";
    const auto& [arena, ref, place] = *result.value;
    const Node* nodes = ref.try_get();
    ASSERT_NE(nodes, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(nodes), place.address);
    EXPECT_EQ(inode_at(nodes), place.inode) << "not the worker's own pages";
    const std::uint64_t count = kNodes + static_cast<std::uint64_t>(result.rank);
    EXPECT_EQ(test::sum_of(nodes), count * (count + 1) / 2);
    EXPECT_EQ(value_of(arena.private_bytes()), 0U);
  }
  EXPECT_FALSE(find<Node>("nodes")) << "names stay in the workers";
  const Ref<Node> first = std::get<1>(*results[0].value);
  const Ref<Node> second = std::get<1>(*results[1].value);
  results[0].value.reset();
  EXPECT_EQ(first.get().error().code, ErrorCode::released);
  EXPECT_NE(second.try_get(), nullptr);
}

Ref<Node> find_node(const std::string& name) { return value_of(find<Node>(name)); }

TEST_P(LaunchArenas, AReferenceToWhatTheParentHasComesBackEqual) {
  Arena arena = make_arena("result");
  const auto ref = value_of(publish("node", make_nodes(arena, 1)));
  ASSERT_TRUE(arena.freeze());
  const auto result = end_of(start<find_node>(one(), "node"));
  EXPECT_EQ(result.value, ref) << result.error;
}

std::pair<Arena, Ref<Node>> build_open() { return make_result(false); }

TEST_P(LaunchArenas, AnArenaThatIsNotFrozenIsAnError) {
  const auto result = end_of(start<build_open>(one()));
  EXPECT_FALSE(result.value);
  EXPECT_THAT(result.error, EndsWith("arena 'result' is not frozen; freeze() it first"));
}

Ref<Node> forget_the_arena() { return make_result().second; }

TEST_P(LaunchArenas, AReferenceWithoutItsArenaSaysWhatToReturn) {
  const auto result = end_of(start<forget_the_arena>(one()));
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(result.error, HasSubstr("was published after this process was started"));
  EXPECT_THAT(result.error, EndsWith("as std::pair<Arena, Ref<T>>"));
  const auto nothing = end_of(start<[]() { return Ref<Node>(); }>(one()));
  EXPECT_TRUE(nothing.ok()) << nothing.error;
}

std::pair<Arena, Ref<Node>> build_for(int /*item*/) { return make_result(); }

TEST_P(LaunchArenas, MapCannotReturnThem) {
  const auto mapped = map<build_for>({.workers = one()}, std::vector<int>{1});
  ASSERT_FALSE(mapped);
  EXPECT_THAT(mapped.error().message, HasSubstr("item 0: its value has an arena"));
}

}  // namespace
}  // namespace cowshed
