#include <cowshed/base/published_layout.h>
#include <cowshed/cow/arenas/frozen_arenas.h>
#include <cowshed/cow/arenas/most_copied.h>
#include <cowshed/cow/arenas/object_copies.h>
#include <cowshed/cow/arenas/published_layout.h>
#include <cowshed/cow/proc/process_pages.h>
#include <cowshed/tests/support/failure.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kAddress = 0x10000;
constexpr const char* kPath = "/memfd:cowshed-layout (deleted)";

// A process whose memory is a file: what we please.
class FakeLayout : public ::testing::Test {
 protected:
  FakeLayout() {
    header_.magic = COWSHED_LAYOUT_MAGIC;
    header_.major = COWSHED_LAYOUT_MAJOR;
    header_.bytes = kBytes;
    header_.arenas = {4096, sizeof(layout::Arena), 1};
    header_.objects = {8192, sizeof(layout::Object), 1};
    arena_.begin = 0x200000000000;
    arena_.end = arena_.begin + (1U << 20U);
    arena_.used = 4096;
    put(arena_.name, "index");
    object_.address = arena_.begin + 64;
    object_.bytes = 100;
    put(object_.name, "words");
    put(object_.type, "Words");
  }
  static void put(std::span<char> field, const std::string& text) {
    std::ranges::fill(field, '\0');
    text.copy(field.data(), field.size());
  }

  // Of the mapping, `mapped` bytes can be read.
  Expected<PublishedLayout> read(std::size_t mapped = kBytes) const {
    return read_published_layout(ProcFiles(root_.path()), 9, write(mapped));
  }
  Expected<std::vector<SentObjects>> read_sent() const {
    return read_sent_objects(ProcFiles(root_.path()), 9, write(kBytes));
  }

  // Writes it, and says where it is.
  std::vector<Mapping> write(std::size_t mapped) const {
    std::string memory(kBytes, '\0');
    std::memcpy(memory.data(), &header_, sizeof header_);
    std::memcpy(memory.data() + 4096, &arena_, sizeof arena_);
    std::memcpy(memory.data() + 8192, &object_, sizeof object_);
    std::memcpy(memory.data() + 12288, &transfer_, sizeof transfer_);
    std::memcpy(memory.data() + kLanes, lanes_.data(), sizeof lanes_);
    memory.resize(mapped);
    root_.write("9/mem", std::string(kAddress, '\0') + memory);
    return {Mapping{},
            {.begin = kAddress, .end = kAddress + kBytes, .is_private = true, .path = kPath}};
  }

  // Version 1.1, with one transfer that two threads had a part in.
  void add_transfers() {
    header_.minor = 1;
    header_.transfers = {12288, sizeof(layout::Transfer), 1};
    header_.transfer_lanes = {kLanes, sizeof(layout::TransferCount), 2};
    transfer_.kind = static_cast<std::uint32_t>(layout::TransferKind::moved);
    put(transfer_.origin, "channel");
    put(transfer_.name, "jobs");
    put(transfer_.type, "Job");
    lanes_ = {{{1, 2, 30}, {10, 20, 300}}};
  }
  static constexpr std::size_t kBytes = 16384;
  const cowshed::test::Folder root_;
  layout::Header header_{};
  layout::Arena arena_{};
  layout::Object object_{};
  static constexpr std::size_t kLanes = 13000;
  layout::Transfer transfer_{};
  std::array<layout::TransferCount, 4> lanes_{};
};

TEST_F(FakeLayout, SaysWhatIsThere) {
  const PublishedLayout result = read().value();
  ASSERT_EQ(result.arenas.size(), 1U);
  EXPECT_EQ(result.arenas[0].name, "index");
  ASSERT_EQ(result.objects.size(), 1U);
  const PublishedObject& object = result.objects[0];
  EXPECT_EQ(object.name, "words");
  EXPECT_EQ(object.type, "Words");
  EXPECT_EQ(object.arena, "index");
  EXPECT_EQ(object.address, arena_.begin + 64);
  EXPECT_EQ(object.bytes, 100U);
}

TEST_F(FakeLayout, VacantEntriesAreLeftOut) {
  arena_.begin = 0;
  object_.address = 0;
  EXPECT_THAT(read().value().arenas, IsEmpty());
  EXPECT_THAT(read().value().objects, IsEmpty());
}

TEST_F(FakeLayout, WhatANewerMinorVersionAddsIsSkipped) {
  header_.minor = 9;
  header_.objects.entry_bytes = sizeof(layout::Object) + 40;
  EXPECT_EQ(read().value().objects.at(0).name, "words");
}

TEST_F(FakeLayout, TextWithoutAnEndEndsWithItsField) {
  std::ranges::fill(arena_.name, 'a');
  std::ranges::fill(object_.name, 'n');
  std::ranges::fill(object_.type, 't');
  const PublishedObject object = read().value().objects.at(0);
  EXPECT_EQ(object.name, std::string(64, 'n'));
  EXPECT_EQ(object.type, std::string(160, 't'));
  EXPECT_EQ(object.arena, std::string(64, 'a'));
}

TEST_F(FakeLayout, WhatIsMalformedIsRefusedWithAReason) {
  using Damage = std::function<void()>;
  const std::pair<const char*, Damage> of_objects[] = {
      {"version 2.0, this program reads 1.x", [&] { header_.major = 2; }},
      {"wrong magic number", [&] { header_.magic ^= 1U; }},
      {"4294967295 objects", [&] { header_.objects.count = UINT32_MAX; }},
      {"table of arenas lies outside", [&] { header_.arenas.count = 1000; }},
      {"table of objects lies outside", [&] { header_.objects.offset = 1ULL << 63U; }},
      {"longer than its mapping", [&] { header_.bytes = 1ULL << 63U; }},
      {"entries of 0 bytes in its table of arenas", [&] { header_.arenas.entry_bytes = 0; }},
      {"entries of 2147483648 bytes in its table of objects",
       [&] { header_.objects.entry_bytes = 1U << 31U; }},
      {"an object in no arena", [&] { object_.arena = 1; }},
      {"an object without end", [&] { object_.bytes = UINT64_MAX; }},
      {"an arena ends before it begins", [&] { arena_.end = arena_.begin - 1; }},
  };
  const std::pair<const char*, Damage> of_transfers[] = {
      {"table of transfers lies outside", [&] { header_.transfers.count = 1000; }},
      {"table of counts lies outside", [&] { header_.transfer_lanes.count = 1000; }},
      {"table of counts lies outside", [&] { header_.transfer_lanes.offset = UINT64_MAX; }},
      {"4294967295 counts", [&] { header_.transfer_lanes.count = UINT32_MAX; }},
      {"entries of 2147483648 bytes in its table of counts",
       [&] { header_.transfer_lanes.entry_bytes = 1U << 31U; }},
      {"bytes in its table of counts", [&] { header_.transfers.count = 2; }},
  };
  const auto expect_refused = [&](const char* why, const Damage& damage, bool in_transfers) {
    const auto good = std::tuple(header_, arena_, object_);
    damage();
    const Error error = in_transfers ? failure_of(read_sent()) : failure_of(read());
    EXPECT_EQ(error.code, ErrorCode::unsupported) << why;
    EXPECT_THAT(error.message, AllOf(HasSubstr("PID 9: "), HasSubstr(why)));
    std::tie(header_, arena_, object_) = good;
  };
  for (const auto& [why, damage] : of_objects) expect_refused(why, damage, false);
  add_transfers();
  for (const auto& [why, damage] : of_transfers) expect_refused(why, damage, true);
}

TEST_F(FakeLayout, MemoryThatEndsTooSoon) {
  for (const std::size_t mapped : {0U, 10U, 4100U, 8200U})
    EXPECT_EQ(failure_of(read(mapped)).code, ErrorCode::no_such_process) << mapped;
}

TEST_F(FakeLayout, AWriterThatDoesNotFinish) {
  header_.sequence = 3;
  const Error error = failure_of(read());
  EXPECT_EQ(error.system_errno, EAGAIN);
  EXPECT_THAT(error.message, HasSubstr("PID 9: its published layout keeps changing"));
}

TEST_F(FakeLayout, WhatWasSentIsTheSumOfAllLanes) {
  add_transfers();
  const SentObjects sent = {"channel", "jobs", "Job", "moved", 11, 22, 330};
  EXPECT_EQ(read_sent().value(), std::vector{sent});
  EXPECT_TRUE(read()) << "the rest is as before";
}

// As of a child whose fork handler has not run yet.
TEST_F(FakeLayout, CountsOfTheParentAreNotTheChilds) {
  add_transfers();
  header_.minor = 3;
  header_.transfers = {12288 - sizeof(layout::Transfer), sizeof(layout::Transfer), 2};
  header_.transfer_lanes = {kLanes, 2 * sizeof(layout::TransferCount), 2};
  lanes_ = {{{0, 0, 8}, {1, 2, 30}, {0, 0, 7}, {10, 20, 300}}};
  root_.write("9/status", "Name:\tchild\nNSpid:\t9\t7\n");
  const SentObjects sent = {"channel", "jobs", "Job", "moved", 10, 20, 300};
  EXPECT_EQ(read_sent().value(), std::vector{sent});
}

TEST_F(FakeLayout, WhatWasNeverSentIsLeftOut) {
  add_transfers();
  lanes_ = {};
  EXPECT_TRUE(read_sent().value().empty());
}

TEST_F(FakeLayout, AnOlderLibraryCountsNoTransfers) {
  add_transfers();
  header_.minor = 0;
  EXPECT_TRUE(read_sent().value().empty());
}

// By object, of an arena of which these bytes were copied.
std::vector<ObjectCopies> copies_of(const PublishedLayout& published, std::uint64_t begin,
                                    PageRange range) {
  Mapping mapping{.begin = begin, .end = begin + (1U << 20U), .path = {}};
  CopiedArena copied{&mapping, {}};
  copied.pages.append(range);
  return copies_by_object(published, {copied});
}

TEST_F(FakeLayout, PagesAreCountedForEveryObjectThatOverlapsThem) {
  PublishedLayout published;
  const std::uint64_t begin = 0x200000000000;
  published.objects = {{"a", "A", "index", begin, 4096 + 10},
                       {"b", "B", "index", begin + 4096 + 10, 3 * kPageSize},
                       {"elsewhere", "C", "other", begin + (1U << 20U), 10}};
  const auto objects = copies_of(published, begin, {begin + 4096, begin + 3 * kPageSize});
  ASSERT_EQ(objects.size(), 2U);
  EXPECT_EQ(objects[0].copied_pages, 1U);
  EXPECT_EQ(objects[1].copied_pages, 2U);
}

TEST_F(FakeLayout, ObjectsWithoutANameAreOneForEachTypeAndAPageOfTheirsCountsOnce) {
  PublishedLayout published;
  const std::uint64_t begin = 0x200000000000;
  for (std::uint64_t i = 0; i < 64; ++i)
    published.objects.push_back({"", "Node", "index", begin + (63 - i) * 64, 64});
  published.objects.push_back({"", "Node", "index", begin + 4096 - 8, 16});
  published.objects.push_back({"", "Edge", "index", begin + 4096, 8});
  published.objects.push_back({"a", "Node", "index", begin, 8});
  const std::vector<ObjectCopies> expected = {
      {"", "Node", "index", 2}, {"", "Edge", "index", 1}, {"a", "Node", "index", 1}};
  EXPECT_EQ(copies_of(published, begin, {begin, begin + 2 * kPageSize}), expected);
}

TEST_F(FakeLayout, OfVeryManyObjectsTheMostCopiedAreKept) {
  PublishedLayout published;
  const std::uint64_t begin = 0x200000000000;
  for (std::uint64_t i = 0; i < 65536; ++i)
    published.objects.push_back({"o" + std::to_string(i), "T", "index", begin + (i % 2) * kPageSize,
                                 (1 + i % 2) * kPageSize});
  const auto objects = copies_of(published, begin, {begin, begin + 4 * kPageSize});
  ASSERT_EQ(objects.size(), kMostObjects);
  std::uint64_t pages = 0;
  for (const ObjectCopies& each : objects) pages += each.copied_pages;
  EXPECT_EQ(pages, 65536U + 32768U);
  EXPECT_EQ(objects.front(), (ObjectCopies{"o1", "T", "index", 2}));
  EXPECT_EQ(objects.back().type, kFurtherObjects);
  auto again = objects;
  again.push_back({"new", "T", "index", 3});
  keep_most_copied(again);
  EXPECT_EQ(again.size(), kMostObjects);
  EXPECT_EQ(again[kMostObjects - 2].name, "new");
  EXPECT_EQ(again.back().copied_pages, objects.back().copied_pages + 2);
}

TEST_F(FakeLayout, ManyObjectsOfAScatteredArenaTakeNoLongTime) {
  PublishedLayout published;
  constexpr std::uint64_t kRanges = 100'000;
  Mapping mapping;
  mapping.begin = 0x200000000000;
  mapping.end = mapping.begin + 2 * kRanges * kPageSize;
  for (int i = 0; i < 65536; ++i)
    published.objects.push_back({"o", "T", "index", mapping.begin, mapping.end - mapping.begin});
  published.objects.push_back({"p", "T", "index", mapping.begin + 2 * kPageSize, 3 * kPageSize});
  CopiedArena copied{&mapping, {}};
  for (std::uint64_t i = 0; i < kRanges; ++i) {
    const std::uint64_t begin = mapping.begin + 2 * i * kPageSize;
    copied.pages.append({begin, begin + kPageSize});
  }
  const auto objects = copies_by_object(published, {copied});
  EXPECT_EQ(objects.front().copied_pages, kRanges);
  published.objects.erase(published.objects.begin(), published.objects.end() - 1);
  EXPECT_EQ(copies_by_object(published, {copied}).front().copied_pages, 2U);
}

TEST_F(FakeLayout, OfVeryManySentTypesTheLargestAreKept) {
  std::vector<SentObjects> sent;
  for (std::uint64_t i = 0; i < 5000; ++i)
    sent.push_back({"channel", "c", std::to_string(i), "value", 1, 1, i});
  keep_most_sent(sent);
  ASSERT_EQ(sent.size(), kMostObjects);
  EXPECT_EQ(sent[kMostObjects - 2].type, "4999");
  EXPECT_EQ(sent.back().messages, 5000 - (kMostObjects - 1));
}

TEST(FrozenArenas, NamesBeyondThoseOfAProcessShareOne) {
  std::vector<ArenaCopies> arenas;
  for (int i = 0; i < 3000; ++i) ++arena_named(arenas, "a" + std::to_string(i)).copied_pages;
  EXPECT_EQ(arenas.size(), COWSHED_MAX_ARENAS + 1);
  EXPECT_EQ(arenas.back().copied_pages, 3000 - COWSHED_MAX_ARENAS);
}

TEST(PublishedLayout, AProcessWithoutOne) {
  const auto mappings = ProcFiles().maps(::getpid()).value();
  EXPECT_EQ(failure_of(read_published_layout(ProcFiles(), ::getpid(), mappings)).code,
            ErrorCode::not_published);
}

// The pages of its own that a process has in its layout.
std::uint64_t layout_pages(pid_t pid, const std::vector<Mapping>& mappings) {
  for (const Mapping& mapping : mappings)
    if (mapping.path == kPath)
      return ProcessPages::open(ProcFiles(), pid)->anonymous_pages(mapping)->bytes() / kPageSize;
  return 0;
}

TEST(PublishedLayout, OfARunningProcess) {
  cowshed::test::Subprocess subject({SHARE_SUBJECT, "objects", "60000"});
  std::uint64_t first = 0;
  std::uint64_t second = 0;
  pid_t publisher = 0;
  std::istringstream(subject.read_until("\n").out) >> std::hex >> first >> second >> std::dec >>
      publisher;
  EXPECT_EQ(publisher, subject.pid());

  const ProcFiles proc;
  const auto children = proc.children(subject.pid()).value();
  ASSERT_EQ(children.size(), 1U);
  const pid_t worker = children.front();
  const auto mappings = proc.maps(worker).value();
  const auto before = layout_pages(worker, mappings);
  const PublishedLayout result = read_published_layout(proc, worker, mappings).value();
  EXPECT_EQ(layout_pages(worker, mappings), before) << "read without a copy";
  ::kill(worker, SIGKILL);

  ASSERT_EQ(result.arenas.size(), 1U);
  EXPECT_EQ(result.arenas[0].name, "subject");
  ASSERT_EQ(result.objects.size(), 2U);
  EXPECT_EQ(result.objects[0].name, "first");
  EXPECT_EQ(result.objects[0].address, first);
  EXPECT_EQ(result.objects[1].name, "second");
  EXPECT_EQ(result.objects[1].address, second);
  EXPECT_EQ(result.objects[1].bytes, 16 * kPageSize);
  EXPECT_THAT(result.objects[1].type, HasSubstr("Block"));
}

}  // namespace
}  // namespace cowshed::cow
