#include <cowshed/share/arena/table.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/registry/objects.h>
#include <cowshed/share/registry/tables.h>
#include <cowshed/tests/share/share.h>
#include <cowshed/tests/support/single_step.h>

#include "registry_other_unit.h"

namespace cowshed {
namespace {

struct Index {
  int answer = 42;
};
struct Other {
  int answer = 1;
};

TEST(Registry, IsSearchedByNameAndType) {
  ArenaOf<Index> of;
  EXPECT_EQ(*find<Index>("index"), of.ref);
  EXPECT_EQ(of.ref.try_get(), of.object);
  EXPECT_THAT(find<Index>("other"), Fails(ErrorCode::not_published));
  EXPECT_THAT(find<Other>("index"), Fails(ErrorCode::wrong_type));
  ASSERT_TRUE(of.arena.freeze());
  EXPECT_EQ(run_in_child([&] { return std::to_string(of.ref->answer); }).said, "42");
}

TEST(Registry, NamesAreUniqueAndNotEmpty) {
  const ArenaOf<Index> of;
  for (const std::string& name : {std::string("index"), std::string(), std::string(64, 'x')})
    EXPECT_THAT(publish(name, of.object), Fails(ErrorCode::invalid_argument)) << name;
  EXPECT_THAT(publish(std::string(1, '\0'), of.object),
              Fails(ErrorCode::invalid_argument, "1 to 63 characters and no NUL"));
}

// Instructions of a find() among so many names.
std::size_t steps_of_find(int names) {
  auto arena = make_arena();
  const auto* object = arena.make<Index>().value();
  for (int i = 0; i < names; ++i) publish("name-" + std::to_string(i), object).value();
  const std::string last = "name-" + std::to_string(names - 1);
  EXPECT_TRUE(arena.freeze());
  test::SteppedChild child(
      {.before = [] {}, .action = [&] { (void)find<Index>(last); }, .after = [] { _exit(0); }});
  return child.step(1'000'000);
}

TEST(Registry, AFindTakesAsManyStepsWhateverTheNumberOfNames) {
  EXPECT_LT(steps_of_find(20'000), 3 * steps_of_find(64));
}

TEST(Ref, NullReference) {
  EXPECT_EQ(outcome(Ref<Index>{}), "null_reference");
  EXPECT_THROW((void)*Ref<Index>{}, BadRef);
}

TEST(Ref, WrongTypeFromBytes) {
  const ArenaOf<Index> of;
  const auto wrong = Ref<Other>(of.ref.bits());
  EXPECT_EQ(wrong.try_get(), nullptr);
  EXPECT_THAT(wrong.get(),
              Fails(ErrorCode::wrong_type, AllOf(HasSubstr("Index"), HasSubstr("Other"))));
}

TEST(Ref, WithdrawnIsReleasedAndItsNameFree) {
  const ArenaOf<Index> of;
  ASSERT_TRUE(withdraw(of.ref));
  EXPECT_EQ(outcome(of.ref), "released");
  EXPECT_THAT(withdraw(of.ref), Fails(ErrorCode::released));
  EXPECT_EQ(outcome(value_of(publish("index", of.object))), "ok");
  EXPECT_EQ(outcome(of.ref), "released");
}

TEST(Ref, SlotsAreReusedWithoutMistakes) {
  const ArenaOf<Index> of;
  ASSERT_TRUE(withdraw(of.ref));
  for (int i = 0; i < 70000; ++i) ASSERT_TRUE(withdraw(*publish("again", of.object)));
  EXPECT_EQ(outcome(of.ref), "released");
}

TEST(Ref, ADestroyedArenaReleases) {
  const Ref<Index> ref = ArenaOf<Index>().ref;
  EXPECT_EQ(outcome(ref), "released");
  EXPECT_THAT(find<Index>("index"), Fails(ErrorCode::not_published));
}

// The child was forked before the references were made, and before one of the arenas.
TEST(Ref, PublishedAfterTheForkIsTooLate) {
  ArenaOf<Index> of;
  ASSERT_TRUE(of.arena.freeze());
  struct Sent {
    std::atomic<bool> is_there;
    Ref<Index> ref, in_a_late_arena;
  };
  auto& sent = test::shared<Sent>();
  Child child([&] {
    while (!sent.is_there) usleep(100);
    if (outcome(sent.in_a_late_arena) != "published_too_late") return 2;
    return outcome(sent.ref) == "published_too_late" ? 0 : 1;
  });
  sent.ref = publish("later", of.object).value();
  Arena late = make_arena("late");
  sent.in_a_late_arena = publish("late", late.make<Index>().value()).value();
  ASSERT_TRUE(late.freeze());
  sent.is_there = true;
  EXPECT_EQ(child.wait(), 0);
}

// A child and its parent publish at the same time: their references are never taken for each
// other's.
TEST(Ref, AChildsPublicationIsNotTheParents) {
  ArenaOf<Index> of;
  ASSERT_TRUE(of.arena.freeze());
  const auto child = run_in_child([&] {
    const auto ref = publish("childs", of.object);
    return std::string(reinterpret_cast<const char*>(&*ref), sizeof *ref);
  });
  const auto own = publish("parents", of.object);
  ASSERT_EQ(child.said.size(), 16U);
  Ref<Index> childs;
  std::memcpy(static_cast<void*>(&childs), child.said.data(), 16);
  EXPECT_EQ(outcome(childs), "published_too_late");
  EXPECT_NE(childs.bits().slot(), own->bits().slot());  // nor would they meet in the parent
}

TEST(Ref, OfAnotherProcessTree) {
  const ArenaOf<Index> of;
  auto bits = of.ref.bits();
  bits.upper ^= std::uint64_t{1} << 63U;
  EXPECT_EQ(outcome(Ref<Index>(bits)), "wrong_process_tree");
  bits = of.ref.bits();
  bits.lower ^= std::uint64_t{1} << 63U;
  EXPECT_EQ(outcome(Ref<Index>(bits)), "wrong_process_tree");
}

// Publishing, using, listing and withdrawing at once, while arenas come and go; for
// ThreadSanitizer.
TEST(Registry, ThreadsDoAllOfItAtOnce) {
  constexpr int kRounds = 30;
  const ArenaOf<Index> lasting;
  std::atomic<int> running = 4;
  (void)begin_threads(6, [&](int i) {
    for (int round = 0; i < 2 && round < kRounds; ++round) {
      Arena own = make_arena(64_MiB, "own");
      const auto ref = publish(*own.make<Index>());
      ASSERT_TRUE(ref && own.freeze());
      EXPECT_EQ((*ref)->answer, 42);
    }
    for (int round = 0; i / 2 == 1 && round < 20 * kRounds; ++round) {
      const auto ref = publish(lasting.object);
      ASSERT_TRUE(ref);
      EXPECT_EQ(ref->try_get(), lasting.object);
      EXPECT_TRUE(withdraw(*ref));
      EXPECT_EQ(ref->try_get(), nullptr);
    }
    running -= i < 4 ? 1 : 0;
    while (running > 0) {
      EXPECT_EQ(*find<Index>("index"), lasting.ref);
      EXPECT_EQ(lasting.ref->answer, 42);
      EXPECT_EQ(outcome(Ref<Other>(lasting.ref.bits())), "wrong_type");
      EXPECT_GE(published().size(), 1U);
      std::this_thread::yield();
    }
  });
  EXPECT_EQ(published().size(), 1U);
}

// The compiler may write one type in two ways, in two source files.
TEST(Ref, ATypeIsTheSameInAllSourceFiles) {
  Arena arena = make_arena();
  std::pmr::vector<int> numbers({1, 2, 3}, arena.resource());
  const auto here = publish("here", std::span<const int>(numbers));
  const auto there = test::publish_span_elsewhere("there", numbers);
  EXPECT_EQ((**here).size(), 3U);
  EXPECT_EQ(test::size_elsewhere(*here), 3U);
  ASSERT_EQ(outcome(there), "ok");
  EXPECT_EQ((*there).size(), 3U);
  EXPECT_EQ(*find<std::span<const int>>("there"), there);
#if defined(__OPTIMIZE__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
  // Else this test proves nothing.
  EXPECT_NE(test::spelled_elsewhere(), type_name<std::span<const int>>());
#endif
}

TEST(Registry, WithoutANameOnlyTheReferenceFindsIt) {
  const ArenaOf<Index> of;
  const auto first = publish(of.object);
  const auto second = publish(of.object);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->try_get(), of.object);
  EXPECT_NE(*first, *second);
  EXPECT_THAT(find<Index>(""), Fails(ErrorCode::not_published));
  ASSERT_TRUE(withdraw(*first));
  EXPECT_EQ(first->try_get(), nullptr);
  EXPECT_THAT(first->get(), Fails(ErrorCode::released, "the object was withdrawn"));
  EXPECT_EQ(outcome(*second), "ok");
  const Index on_the_stack;
  EXPECT_THAT(publish(&on_the_stack), Fails(ErrorCode::not_in_arena));
  EXPECT_THAT(publish("stack", &on_the_stack), Fails(ErrorCode::not_in_arena));
  EXPECT_THAT(publish<Index>("null", nullptr), Fails(ErrorCode::not_in_arena));
}

TEST(Registry, AnArrayIsASpan) {
  Arena arena = make_arena();
  std::pmr::vector<int> numbers({1, 2, 3}, arena.resource());
  const Ref<std::span<const int>> ref = value_of(publish("numbers", std::span(numbers)));
  EXPECT_EQ(ref->data(), numbers.data());
  EXPECT_THAT(*ref, ElementsAre(1, 2, 3));
  EXPECT_EQ(*find<std::span<const int>>("numbers"), ref);
  EXPECT_THAT(find<std::span<const unsigned>>("numbers"), Fails(ErrorCode::wrong_type));
  ASSERT_TRUE(arena.freeze());
  EXPECT_EQ(run_in_child([&] { return std::to_string((*ref)[2]); }).said, "3");

  const auto unnamed = publish(std::span<const int>(numbers).first(2));
  EXPECT_EQ((**unnamed).size(), 2U);
  const std::array<int, 3> on_the_stack{};
  EXPECT_THAT(publish("stack", std::span(on_the_stack)), Fails(ErrorCode::not_in_arena));
  const std::span<const int> too_long(numbers.data(), 64_MiB);
  EXPECT_THAT(publish("long", too_long), Fails(ErrorCode::not_in_arena));
}

TEST(Registry, ListsWhatIsPublished) {
  Arena arena = make_arena(64_MiB, "listed");
  std::pmr::vector<int> numbers({1, 2, 3}, arena.resource());
  const auto index = publish("index", static_cast<const Index*>(*arena.make<Index>()));
  const auto array = publish(std::span(numbers));
  const auto gone = publish("gone", static_cast<const Index*>(*arena.make<Index>()));
  ASSERT_TRUE(withdraw(*gone));
  std::vector<Published> list = published();
  ASSERT_EQ(list.size(), 2U);
  std::sort(list.begin(), list.end(),
            [](const auto& a, const auto& b) { return a.generation < b.generation; });
  EXPECT_EQ(list[0].name, "index");
  EXPECT_THAT(list[0].type, HasSubstr("Index"));
  EXPECT_EQ(list[0].bytes, sizeof(Index));
  EXPECT_EQ(list[0].arena, "listed");
  EXPECT_EQ(list[0].generation, index->bits().generation());
  EXPECT_EQ(list[0].publisher, ::getpid());
  EXPECT_EQ(list[1].name, "");
  EXPECT_EQ(list[1].bytes, 3 * sizeof(int));
  EXPECT_EQ(list[1].generation, array->bits().generation());
  // What was not inherited is not listed, and a child's own publisher is the child.
  EXPECT_EQ(run_in_child([] { return std::to_string(published().size()); }).said, "0");
}

registry::Object lost_object(std::uint32_t generation, const std::string& name = "") {
  registry::Object object;
  object.name = name;
  object.generation = generation;
  return object;
}

void join_a_new_tree() {
  FileDescriptor memfd = internal::make_memfd("tree", internal::Sealable::yes);
  EXPECT_EQ(ftruncate(memfd.get(), sizeof(process_tree::Shared)), 0);
  EXPECT_EQ(fcntl(memfd.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL), 0);
  struct stat status{};
  EXPECT_EQ(fstat(memfd.get(), &status), 0);
  const std::uint64_t id = std::uint64_t{1} << 32U | static_cast<std::uint32_t>(status.st_ino);
  EXPECT_TRUE(registry::join_tree(id, std::move(memfd), 0, "this test"));
}

TEST(Registry, ANewTreeKnowsNothingOfTheOldOne) {
  const auto child = run_in_child([] {
    const internal::RefBits withdrawn = ArenaOf<Index>().ref.bits();
    const std::uint32_t lost = withdrawn.generation() + 1;
    registry::enter_lost("old", {lost_object(lost, "lost")});
    const std::string before = find<Index>("lost").error().message;
    join_a_new_tree();
    const auto in_the_new_tree = [&](std::uint32_t generation) {
      const internal::RefBits bits(registry::tree_bits(), generation, withdrawn.address());
      return outcome(Ref<Index>(bits));
    };
    return before + ": " + in_the_new_tree(withdrawn.generation()) + " " + in_the_new_tree(lost) +
           " " + std::string(to_string(code_of(find<Index>("lost"))));
  });
  EXPECT_THAT(child.said, StartsWith("'lost': arena 'old' was not frozen"));
  EXPECT_THAT(child.said, EndsWith(": published_too_late published_too_late not_published"));
}

TEST(Registry, AForkDoesNotLiftTheLimitOfLostObjects) {
  constexpr std::uint32_t kFirst = 1U << 20U;
  const auto child = run_in_child([] {
    const ArenaOf<Index> open;
    const auto second = value_of(publish(open.object));
    std::vector<registry::Object> lost;
    for (std::uint32_t i = 1; i < internal::kMaxPublished; ++i)
      lost.push_back(lost_object(kFirst + i));
    registry::enter_lost("lost", lost);
    const auto grandchild = run_in_child([&] {  // has lost both objects in `open`, too
      registry::enter_lost("lost", {lost_object(2 * kFirst)});
      const auto [tree, address] = std::pair(open.ref.bits().tree(), open.ref.bits().address());
      const internal::RefBits one_too_many(tree, 2 * kFirst, address);
      return outcome(second) + " " + outcome(Ref<Index>(one_too_many));
    });
    return grandchild.said;
  });
  EXPECT_EQ(child.said, "not_inherited published_too_late");
}

TEST(Registry, APublicationIsReceivedOnce) {
  const ArenaOf<Index> of;
  const internal::ArenaCore* core = internal::find_arena(of.object);
  auto objects = registry::objects_in(*core);
  objects.at(0).name = "another";
  EXPECT_THAT(registry::publish_foreign({{core, objects}}, "advice"),
              Fails(ErrorCode::invalid_argument, "'index' is published already"));
  EXPECT_EQ(outcome(of.ref), "ok");
}

// As in PID namespaces, where two processes may have the same PID.
TEST(Registry, ASenderWithThisPidMayWithdrawWhatItSent) {
  const ArenaOf<Index> of;
  const internal::ArenaCore* core = internal::find_arena(of.object);
  auto objects = registry::objects_in(*core);
  objects.at(0).name = "received";
  ++objects.at(0).generation;
  ASSERT_TRUE(registry::publish_foreign({{core, objects}}, "advice"));
  EXPECT_TRUE(find<Index>("received"));
  objects.clear();
  registry::keep_objects(*core, objects);
  EXPECT_THAT(find<Index>("received"), Fails(ErrorCode::not_published));
  EXPECT_EQ(outcome(of.ref), "ok");
}

// Another thread may receive the object between the use and the question why it failed.
TEST(Ref, ThatIsGoodByNowIsNotCalledUnsafe) {
  const ArenaOf<Index> of;
  EXPECT_EQ(internal::explain(of.ref.bits(), internal::kTypeInfo<Index>).code,
            ErrorCode::published_too_late);
}

TEST(Ref, IsHashedAndPrinted) {
  const ArenaOf<Index> of;
  const auto first = publish(of.object);
  const auto second = publish(of.object);
  const std::unordered_set<Ref<Index>> set = {*first, *second, *first};
  EXPECT_EQ(set.size(), 2U);
  EXPECT_TRUE(set.contains(*second));
  std::ostringstream printed;
  printed << *first;
  EXPECT_EQ(printed.str(), to_string(*first));
  EXPECT_THAT(printed.str(),
              testing::MatchesRegex("Ref<.*Index>\\(generation [0-9]+, tree [0-9a-f]{12}\\)"));
  EXPECT_THAT(to_string(Ref<Index>{}), EndsWith("Index>(nothing)"));
}

}  // namespace
}  // namespace cowshed
