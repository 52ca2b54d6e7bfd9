#include <gtest/gtest-spi.h>
#include <regex>

#include <cowshed/cow/gtest_matchers.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>
#include <cowshed/tests/cow/children.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/scale.h>

struct alignas(4096) Page {
  std::array<char, 4096> bytes;
};

// Somebody's program.
namespace app {

struct Index {
  std::array<Page, 16> pages;
};

void search(const Index& index, std::array<Page, 4>& counts) {
  for (std::size_t page = 4; page < 6; ++page)
    const_cast<Page&>(index.pages.at(page)).bytes[0] += 1;
  counts[2].bytes[0] += 1;
}

}  // namespace app

namespace cowshed::cow {
namespace {

using test::measured_child;

struct Block {
  std::array<Page, 16> pages;
};

void write_to(const Block& block, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) const_cast<Page&>(block.pages.at(i)).bytes[0] += 1;
}

// Without what differs from one run to the next.
std::string shape_of(const std::string& text) {
  const std::string shape = std::regex_replace(text, std::regex("0x[0-9a-f]+"), "ADDRESS");
  return std::regex_replace(shape, std::regex(":[0-9]+"), ":LINE");
}

class MeterObjects : public ::testing::Test {
 protected:
  static const Block* made(Arena& arena, const char* name) {
    const Block* block = arena.make<Block>().value();
    (void)publish(name, block).value();
    return block;
  }

  Arena arena_ = Arena::create({.name = "subject", .capacity = 64_MiB}).value();
  const Block* first_ = made(arena_, "first");
  const Block* second_ = made(arena_, "second");
};

TEST_F(MeterObjects, NamesWhatWasCopied) {
  ASSERT_TRUE(arena_.freeze(FreezeMode::lenient));
  write_to(*first_, 2);  // before the fork: inherited, not copied
  const Meter meter = measured_child([&] {
    write_to(*first_, 1);
    write_to(*second_, 3);
  });
  const MeterResult& copied = *meter.copied();
  ASSERT_EQ(copied.objects.size(), 2U);
  EXPECT_THAT(copied.of_object("first"), AtMost(4_KiB));
  EXPECT_EQ(copied.of_object("first")->bytes(), 4_KiB);
  EXPECT_EQ(copied.of_object("second")->bytes(), 12_KiB);
  EXPECT_EQ(copied.bytes_of(copied.objects[0]) + copied.bytes_of(copied.objects[1]), 16_KiB);
  ASSERT_FALSE(copied.mappings.empty());
  EXPECT_EQ(copied.mappings[0].arena, "subject");
  // The arena's other pages are shared with the file still.
  EXPECT_GE(copied.still_shared_bytes, (32 - 5) * 4_KiB);
}

TEST_F(MeterObjects, AFailedExpectationSaysWhichObjectAndWhere) {
  ASSERT_TRUE(arena_.freeze(FreezeMode::lenient));
  const Meter meter = measured_child([&] { write_to(*second_, 3); });
  static Expected<MeterResult> copied = meter.copied();
  EXPECT_NONFATAL_FAILURE(EXPECT_THAT(copied, AtMost(8_KiB)), "12 KiB of object 'second' (");
  // Before that the compiler's own name of the namespaces.
  EXPECT_NONFATAL_FAILURE(EXPECT_THAT(copied, AtMost(8_KiB)), "::Block) of arena 'subject'");
  EXPECT_NONFATAL_FAILURE(EXPECT_THAT(copied, AtMost(8_KiB)), "12 KiB of arena 'subject' (0x");
  EXPECT_NONFATAL_FAILURE(EXPECT_THAT(copied->of_object("second"), AtMost(8_KiB)),
                          "12 KiB copied by PID");
  EXPECT_NONFATAL_FAILURE(EXPECT_THAT(copied->of_object("third"), AtMost(1_GiB)),
                          "publishes no object 'third'");
}

// Each line of docs/how-to/test-with-meter.md is said, or begun, in order.  (The first has sums,
// in which there may be a page of the stack, of either process.)
TEST_F(MeterObjects, AFailureReadsAsTheDocumentationHasIt) {
  if (cowshed::test::kSanitized) GTEST_SKIP() << "shows a program without a sanitizer";
  const std::string page = cowshed::test::contents_of(MEASURING_MD);
  if (page.empty()) GTEST_SKIP() << "runs without its sources";
  const auto* index = arena_.make<app::Index>().value();
  (void)publish("index", index).value();
  ASSERT_TRUE(arena_.freeze(FreezeMode::lenient));
  const auto counts = std::make_unique<std::array<Page, 4>>();
  const Meter meter = measured_child([&] { app::search(*index, *counts); });
  ::testing::StringMatchResultListener listener;
  ASSERT_FALSE(::testing::ExplainMatchResult(AtMost(4_KiB), meter.copied(), &listener));
  const std::string said = shape_of(listener.str());

  const std::size_t begin = page.find("KiB copied by PID");
  ASSERT_NE(begin, std::string::npos);
  std::istringstream lines(page.substr(begin, page.find("```", begin) - begin));
  std::string line;
  std::getline(lines, line);
  for (std::size_t at = 0; std::getline(lines, line);) {
    at = said.find(shape_of(line), at);
    ASSERT_NE(at, std::string::npos) << line << "\nis not in\n" << listener.str();
  }
}

TEST_F(MeterObjects, AStrictArenaIsNotCopied) {
  ASSERT_TRUE(arena_.freeze());
  const Meter meter = measured_child([&] {
    volatile char sum = 0;
    for (const Page& page : second_->pages) sum = static_cast<char>(sum + page.bytes[0]);
  });
  EXPECT_THAT(meter.copied()->of_object("second"), AtMost(0));
}

}  // namespace
}  // namespace cowshed::cow
