#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cowshed/tools/search/stanza.h>
#include <cowshed/tools/search/words.h>

namespace cowshed::search {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// The packages of a list, or the message.
struct Parsed {
  std::vector<std::string> packages;
  std::string error;
};

Parsed parse(std::string_view text) {
  StanzaReader reader(text, "list");
  Stanza stanza;
  Parsed parsed;
  for (;;) {
    const auto more = reader.next(stanza);
    if (!more) {
      parsed.error = more.error().message;
      return parsed;
    }
    if (!*more) {
      return parsed;
    }
    parsed.packages.emplace_back(stanza["Package"]);
  }
}

TEST(Stanza, FieldsAreFoundInAnyCase) {
  StanzaReader reader("Package: a\nVersion: 1:2-3\nDescription: short: one\n\n", "list");
  Stanza stanza;
  ASSERT_TRUE(reader.next(stanza).value());
  EXPECT_EQ(stanza["package"], "a");
  EXPECT_EQ(stanza["VERSION"], "1:2-3");
  EXPECT_EQ(stanza["Description"], "short: one");
  EXPECT_EQ(stanza["Depends"], "");
  EXPECT_EQ(stanza.fields().size(), 3U);
  EXPECT_FALSE(reader.next(stanza).value());
}

TEST(Stanza, ContinuationLinesBelongToTheField) {
  StanzaReader reader("Package: a\nVersion: 1\nTag: one, two,\n three,\n\tfour\nSize: 7\n\n",
                      "list");
  Stanza stanza;
  ASSERT_TRUE(reader.next(stanza).value());
  EXPECT_EQ(stanza["Tag"], "one, two,\n three,\n\tfour");
  EXPECT_EQ(stanza["Size"], "7");
}

TEST(Stanza, AFieldMayBeginOnItsContinuationLine) {
  StanzaReader reader("Package: a\nVersion: 1\nConffiles:\n /etc/a 12\n\n", "list");
  Stanza stanza;
  ASSERT_TRUE(reader.next(stanza).value());
  EXPECT_THAT(std::string(stanza["Conffiles"]), HasSubstr("/etc/a 12"));
}

TEST(Stanza, BlankLinesMayRepeatAndTheLastMayBeMissing) {
  EXPECT_THAT(parse("\n\nPackage: a\nVersion: 1\n\n \n\nPackage: b\nVersion: 2\n").packages,
              ElementsAre("a", "b"));
}

TEST(Stanza, CarriageReturnsAreLineEnds) {
  StanzaReader reader(
      "Package: a\r\nVersion: 1\r\nTag: xx,\r\n yy\r\n\r\nPackage: b\r\nVersion: 2\r\n", "list");
  Stanza stanza;
  ASSERT_TRUE(reader.next(stanza).value());
  EXPECT_EQ(stanza["Version"], "1");
  EXPECT_THAT(words_of(stanza["Tag"]), ElementsAre("xx", "yy"));
  ASSERT_TRUE(reader.next(stanza).value());
  EXPECT_EQ(stanza["Package"], "b");
}

TEST(Stanza, NothingIsNoRecord) {
  for (const std::string_view text : {"", "\n", "\r\n\n \n"}) {
    const Parsed parsed = parse(text);
    EXPECT_THAT(parsed.packages, ElementsAre());
    EXPECT_EQ(parsed.error, "");
  }
}

TEST(Stanza, ErrorsNameTheLine) {
  const std::string good = "Package: a\nVersion: 1\n\n";
  EXPECT_THAT(parse(good + "Package: b\n\n").error,
              HasSubstr("list:5: a record without the field Version"));
  EXPECT_THAT(parse(good + "Version: 1\n").error, HasSubstr("without the field Package"));
  EXPECT_THAT(parse(good + " more\n").error, HasSubstr("list:4: a continuation line"));
  EXPECT_THAT(parse(good + "no colon here\n").error, HasSubstr("list:4: not a 'Name: value' line"));
  EXPECT_THAT(parse(good + ": no name\n").error, HasSubstr("list:4: not a 'Name: value' line"));
  EXPECT_THAT(parse(good + "two words: x\n").error, HasSubstr("not a 'Name: value' line"));
  EXPECT_THAT(parse(good + "Package: b\nVersion: 0.").error,
              HasSubstr("list:5: the list ends in the middle of a line"));
  EXPECT_EQ(parse(good + "Package: b\n\n").packages.size(), 1U);
}

TEST(Stanza, GarbageIsOneClearLine) {
  std::string garbage;
  for (unsigned i = 0; i < 100'000; ++i) {
    garbage += static_cast<char>(i * 2654435761U >> 13U);
  }
  for (const std::string& text : {garbage, std::string("Package: a\0b\n", 13),
                                  std::string(1000, '\0'), std::string("\xff\n")}) {
    EXPECT_THAT(parse(text).error,
                AllOf(HasSubstr("list:1: "), HasSubstr("apt-get update"), Not(HasSubstr("\n"))));
  }
}

TEST(Words, AreLowerCaseRunsOfLettersAndDigits) {
  EXPECT_THAT(words_of("C++ HTTP/2 web-server, x \xC3\xA9t\xC3\xA9"),
              ElementsAre("http", "web", "server", "\xC3\xA9t\xC3\xA9"));
  EXPECT_THAT(words_of(std::string(41, 'a') + " " + std::string(40, 'b')),
              ElementsAre(std::string(40, 'b')));
  EXPECT_THAT(words_of(""), ElementsAre());
}

}  // namespace
}  // namespace cowshed::search
