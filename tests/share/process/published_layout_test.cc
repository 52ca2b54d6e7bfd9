#include <linux/memfd.h>

#include <cowshed/base/published_layout.h>
#include <cowshed/share/arena_transfer.h>
#include <cowshed/tests/share/share.h>
#include <cowshed/tests/support/refusals.h>

namespace cowshed {
namespace {

struct Index {
  std::array<char, 10000> bytes{};
};

// This process's own layout, found as a stranger finds it; null when there is none.
const layout::Header* own_layout() {
  for (const test::Mapping& mapping : test::all_mappings()) {
    if (mapping.name == "/memfd:cowshed-layout (deleted)") {
      EXPECT_EQ(mapping.permissions, "rw-p");
      return reinterpret_cast<const layout::Header*>(mapping.begin);
    }
  }
  return nullptr;
}

template <class Entry>
const Entry& entry(const layout::Table& table, std::uint32_t index) {
  return *reinterpret_cast<const Entry*>(reinterpret_cast<const char*>(own_layout()) +
                                         table.offset + std::size_t{index} * table.entry_bytes);
}

// The entry of this name; null when there is none.
template <class Entry>
const Entry* named(const layout::Table& table, const std::string& name) {
  for (std::uint32_t i = 0; i < table.count; ++i) {
    const auto& candidate = entry<Entry>(table, i);
    if (name == candidate.name) return &candidate;
  }
  return nullptr;
}

const layout::Arena* arena_named(const std::string& name) {
  return named<layout::Arena>(own_layout()->arenas, name);
}
const layout::Object* object_named(const std::string& name) {
  return named<layout::Object>(own_layout()->objects, name);
}

// First, so that this process has no layout to inherit yet.
TEST(ALayoutThatCannotBeMade, IsMissedByNothing) {
  ASSERT_EQ(own_layout(), nullptr);
  const auto child = run_in_child([] {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    // Those with MFD_NOEXEC_SEAL; an arena's have MFD_ALLOW_SEALING too.
    test::refuse_call(SYS_memfd_create, test::Argument{1, MFD_CLOEXEC | 8U}, EMFILE);
    ArenaOf<Index> of;
    std::ostringstream seen;
    seen << of.arena.freeze().has_value() << (of.ref.try_get() != nullptr)
         << withdraw(of.ref).has_value() << (own_layout() == nullptr);
    return seen.str();
  });
  EXPECT_EQ(child.said, "1111");
}

TEST(Layout, NamesWhatAnotherProcessSent) {
  std::array<int, 2> sockets{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()), 0);
  const auto child = run_in_child([&] {
    Arena arena = make_arena("sent");
    const Index* index = *arena.make<Index>();
    const bool sent =
        publish("sent index", index) && arena.freeze() && send_arena(sockets[1], arena);
    std::ostringstream said;
    said << sent << ' ' << index << ' ' << ::getpid();
    return said.str();
  });
  {
    const Arena arena = value_of(receive_arena(sockets[0]));
    const layout::Arena* shown = arena_named("sent");
    ASSERT_NE(shown, nullptr);
    EXPECT_EQ(shown->begin, reinterpret_cast<std::uintptr_t>(arena.base()));
    EXPECT_EQ(shown->state, COWSHED_ARENA_STRICT);
    const layout::Object* object = object_named("sent index");
    ASSERT_NE(object, nullptr);
    EXPECT_EQ(object->bytes, sizeof(Index));
    EXPECT_THAT(object->type, HasSubstr("Index"));
    std::ostringstream expected;
    expected << "1 " << reinterpret_cast<const void*>(object->address) << ' ' << object->publisher;
    EXPECT_EQ(child.said, expected.str());
  }
  EXPECT_EQ(arena_named("sent"), nullptr);
  EXPECT_EQ(object_named("sent index"), nullptr);
  for (const int socket : sockets) ::close(socket);
}

TEST(Layout, NamesArenasAndObjects) {
  const ArenaOf<Index> of("shown");
  const layout::Header* header = own_layout();
  ASSERT_NE(header, nullptr);
  EXPECT_EQ(header->magic, COWSHED_LAYOUT_MAGIC);
  EXPECT_EQ(header->major, COWSHED_LAYOUT_MAJOR);
  EXPECT_EQ(header->sequence % 2, 0U);

  const layout::Object* object = object_named("index");
  ASSERT_NE(object, nullptr);
  EXPECT_EQ(object->address, reinterpret_cast<std::uintptr_t>(of.object));
  EXPECT_EQ(object->bytes, sizeof(Index));
  EXPECT_EQ(object->alignment, alignof(Index));
  EXPECT_EQ(object->generation, of.ref.bits().generation());
  EXPECT_EQ(object->publisher, static_cast<std::uint32_t>(::getpid()));
  EXPECT_THAT(object->type, HasSubstr("Index"));

  const auto& shown = entry<layout::Arena>(header->arenas, object->arena);
  EXPECT_STREQ(shown.name, "shown");
  EXPECT_EQ(shown.begin, reinterpret_cast<std::uintptr_t>(of.arena.base()));
  EXPECT_EQ(shown.end - shown.begin, 64_MiB);
  EXPECT_EQ(shown.used, of.arena.stats().used);
  EXPECT_EQ(shown.state, COWSHED_ARENA_OPEN);
}

TEST(Layout, ShowsHowAnArenaIsFrozen) {
  Arena strict = make_arena("strict");
  ASSERT_TRUE(strict.make<Index>() && strict.freeze(FreezeMode::strict));
  Arena lenient = make_arena("lenient");
  ASSERT_TRUE(lenient.make<Index>() && lenient.freeze(FreezeMode::lenient));
  EXPECT_EQ(arena_named("strict")->state, COWSHED_ARENA_STRICT);
  EXPECT_EQ(arena_named("strict")->used, strict.stats().used);
  EXPECT_EQ(arena_named("lenient")->state, COWSHED_ARENA_LENIENT);
}

TEST(Layout, WhatIsGoneIsVacant) {
  {
    Arena arena = make_arena("gone");
    const Index* index = *arena.make<Index>();
    const auto withdrawn = publish("withdrawn", index);
    ASSERT_TRUE(withdrawn);
    ASSERT_TRUE(publish("released", index));
    ASSERT_TRUE(withdraw(*withdrawn));
    EXPECT_EQ(object_named("withdrawn"), nullptr);
    EXPECT_NE(object_named("released"), nullptr);
  }
  EXPECT_EQ(object_named("released"), nullptr);
  EXPECT_EQ(arena_named("gone"), nullptr);
}

TEST(Layout, AChildShowsWhatItHasAndNothingElse) {
  Arena frozen = make_arena("frozen");
  const Index* in_frozen = *frozen.make<Index>();
  ASSERT_TRUE(publish("in_frozen", in_frozen));
  ASSERT_TRUE(frozen.freeze());
  Arena open = make_arena("open");
  ASSERT_TRUE(publish("in_open", *open.make<Index>()));
  const auto child = run_in_child([&]() -> std::string {
    std::ostringstream seen;
    seen << (object_named("in_frozen") != nullptr) << (arena_named("frozen") != nullptr)
         << (object_named("in_open") != nullptr) << (arena_named("open") != nullptr)
         << publish("late", in_frozen).has_value() << (object_named("late") != nullptr)
         << (object_named("late")->publisher == static_cast<std::uint32_t>(::getpid()));
    return seen.str();
  });
  EXPECT_EQ(child.said, "1100111");
  EXPECT_EQ(object_named("late"), nullptr) << "the child's own affair";
  EXPECT_NE(object_named("in_open"), nullptr);
}

TEST(Layout, TakesThreePagesAndAChildOfFrozenArenasWritesToNone) {
  ArenaOf<Index> of;
  ASSERT_TRUE(of.arena.freeze());
  const layout::Header* header = own_layout();
  EXPECT_LE(test::own_pages(header, header->bytes), 3U) << "the header, one page of each table";
  const std::uint32_t sequence = header->sequence;
  const auto child = run_in_child(
      [&] { return std::to_string(of.ref->bytes[0]) + " " + std::to_string(header->sequence); });
  EXPECT_EQ(child.said, "0 " + std::to_string(sequence));
}

TEST(Layout, PublishingAgainAndAgainTakesNoMorePages) {
  const ArenaOf<Index> of;
  for (int i = 0; i < 1000; ++i) {
    const auto ref = publish(of.object);
    ASSERT_TRUE(ref);
    ASSERT_TRUE(withdraw(*ref));
  }
  EXPECT_NE(object_named("index"), nullptr);
  const layout::Header* header = own_layout();
  EXPECT_LE(header->objects.count, 16U);
  EXPECT_LE(test::own_pages(header, header->bytes), 3U);
}

}  // namespace
}  // namespace cowshed
