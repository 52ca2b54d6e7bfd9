#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cowshed/tools/search/engine.h>
#include <cowshed/tools/search/index_builder.h>
#include <cowshed/tools/search/storage.h>

namespace cowshed::search {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

// `ring` and `loop` need each other; `server` is there twice.
constexpr std::string_view kList = R"(Package: server
Version: 2
Maintainer: Ann <ann@example.org>
Installed-Size: 100
Depends: ring (>= 1), missing | loop:any, absent
Description: web server for pages
Tag: network::server, role::program
Section: httpd
SHA256: 00ff

Package: ring
Version: 1
Maintainer: Bob <bob@example.org>
Installed-Size: 20
Pre-Depends: loop
Description: library of rings
Section: libs

Package: loop
Version: 1
Installed-Size: many
Depends: ring
Description: library of loops

Package: server
Version: 3
Description: newer web server

)";

template <class Storage>
class IndexTest : public testing::Test {
 protected:
  IndexTest() {
    IndexBuilder<Storage> builder(storage_, *index_);
    if (!builder.add_list(kList, "list", 0)) {
      throw std::runtime_error("the list of the test");
    }
    builder.finish();
  }

  Storage storage_ = Storage::create().value();
  typename Storage::template Owned<Index<Storage>> index_ =
      storage_.template make_owned<Index<Storage>>();
};

using Storages = testing::Types<HeapStorage, ArenaStorage>;
TYPED_TEST_SUITE(IndexTest, Storages);

TYPED_TEST(IndexTest, HoldsEveryRecord) {
  const auto& index = *this->index_;
  ASSERT_EQ(index.records.size(), 4U);
  const auto* server = look_up(index.by_name, "server");
  ASSERT_NE(server, nullptr);
  EXPECT_EQ((*server)->version, "2");  // the first
  EXPECT_EQ((*server)->installed_kib, 100U);
  EXPECT_EQ(*look_up((*server)->more, "SHA256"), "00ff");
  EXPECT_EQ((*look_up(index.by_name, "loop"))->installed_kib, 0U);  // "many" is no number
  EXPECT_EQ((*look_up(index.by_name, "loop"))->maintainer->name, "(none)");
  EXPECT_EQ(look_up(index.by_name, "missing"), nullptr);
}

TYPED_TEST(IndexTest, ResolvesDependencies) {
  const auto& server = *look_up(this->index_->by_name, "server");
  ASSERT_EQ(server->depends.size(), 2U);
  EXPECT_EQ(server->depends[0]->name, "ring");
  EXPECT_EQ(server->depends[1]->name, "loop");
  EXPECT_EQ(server->depends[0]->depends[0].get(), server->depends[1].get());
  EXPECT_EQ(server->depends[0]->wanted_by, 2U);
}

TYPED_TEST(IndexTest, FindsWordsOfNamesDescriptionsAndTags) {
  const auto& by_word = this->index_->by_word;
  EXPECT_EQ(look_up(by_word, "library")->size(), 2U);
  EXPECT_EQ(look_up(by_word, "server")->size(), 2U);  // once per package, however often it says so
  EXPECT_EQ(look_up(by_word, "network")->size(), 1U);
  EXPECT_EQ(look_up(by_word, "ann"), nullptr);
}

TYPED_TEST(IndexTest, AnswersQueries) {
  const auto pages = make_warm_pages(this->storage_, *this->index_, 2);
  ASSERT_EQ(pages.size(), 2U);
  ASSERT_TRUE(this->storage_.publish(this->index_).has_value());
  Engine<TypeParam> engine(*this->index_, pages);
  EXPECT_EQ(engine.answer({QueryKind::words, "web library"}),
            "words 'web library': 4 packages loop=1 ring=1 server=2 server=3");
  EXPECT_EQ(engine.answer({QueryKind::words, "server"}),
            "words 'server': 2 packages server=2 server=3");
  EXPECT_EQ(engine.answer({QueryKind::words, "nothing"}), "words 'nothing': 0 packages");
  EXPECT_EQ(engine.answer({QueryKind::install, "server"}),
            "install 'server': 3 packages, 120 KiB server=2 ring=1 loop=1");
  EXPECT_THAT(engine.answer({QueryKind::show, "server"}),
              AllOf(StartsWith("show 'server': web server for pages, 100 KiB, httpd, by Ann"),
                    HasSubstr("needs 2, wanted by 0, 00ff")));
  EXPECT_EQ(engine.answer({QueryKind::show, "absent"}), "show 'absent': no such package");
  EXPECT_EQ(engine.answer({QueryKind::section, "libs"}), "section 'libs': 1 packages ring=1");
  EXPECT_EQ(engine.answer({QueryKind::author, "Bob <bob@example.org>"}),
            "author 'Bob <bob@example.org>': 1 packages ring=1");
}

TYPED_TEST(IndexTest, CountsCopiesOfReferencesAndFrees) {
  auto pages = make_warm_pages(this->storage_, *this->index_, 100);
  ASSERT_TRUE(this->storage_.publish(this->index_).has_value());
  tally = {};
  {
    const auto copy = this->index_->records[0];
    auto other = copy;
    const auto moved = std::move(other);
    EXPECT_EQ(moved->name, "server");
  }
  EXPECT_EQ(tally.references_copied, 2U);
  EXPECT_EQ(tally.frees, 0U);
  free_pages_of_others<TypeParam>(pages, 1, 3);
  EXPECT_EQ(tally.frees, pages.size() - (pages.size() + 1) / 3);
  EXPECT_EQ(pages[0].get(), nullptr);
  EXPECT_NE(pages[1].get(), nullptr);
  const auto frees = tally.frees;
  pages[0].reset();
  EXPECT_EQ(tally.frees, frees);
}

TYPED_TEST(IndexTest, QueriesRepeat) {
  const auto one = make_queries(*this->index_, 50);
  const auto two = make_queries(*this->index_, 50);
  ASSERT_EQ(one.size(), 50U);
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].kind, two[i].kind);
    EXPECT_EQ(one[i].text, two[i].text);
  }
}

}  // namespace
}  // namespace cowshed::search
