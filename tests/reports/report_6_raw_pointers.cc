// The report: sharing by id()/raw pointer with ref()/deref() works only if the object lived before
// the fork, breaks for temporaries, and leaves clean-up by hand.

#include <cowshed/base/size_literals.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>
#include <cowshed/tests/support/test.h>

namespace cowshed {
namespace {

struct Word {
  std::array<char, 100> text;
};
using WordRef = Ref<Word>;

Arena make_arena(const std::string& name) {
  return Arena::create({.name = name, .capacity = 64_MiB}).value();
}

// What a worker that was forked before gets for the reference.
class Reader {
 public:
  Reader() {
    worker_.emplace(start({.name = "reader"}, [this] {
                      while (const auto ref = refs_.receive()) {
                        const auto object = ref->get();
                        const int code = object ? -1 : static_cast<int>(object.error().code);
                        if (!codes_.send(code)) return 1;
                      }
                      return 0;
                    }).value());
  }
  std::string_view read(const WordRef& ref) {
    const int code = refs_.send(ref) ? codes_.receive().value() : -2;
    return code == -1 ? "the object" : to_string(static_cast<ErrorCode>(code));
  }
  bool ended_well() {
    refs_.close();
    return worker_->wait().value().at(0).ok();
  }

 private:
  Channel<WordRef> refs_ = Channel<WordRef>::create({.name = "refs"}).value();
  Channel<int> codes_ = Channel<int>::create({.name = "codes"}).value();
  std::optional<Workers<>> worker_;
};

TEST(RawPointers, WithCowshedEveryReferenceIsTheObjectOrAClearError) {
  Arena early = make_arena("early");
  const Word* word = early.make<Word>().value();
  const auto made_early = publish("early", word).value();
  const auto withdrawn = publish("withdrawn", word).value();
  ASSERT_TRUE(withdraw(withdrawn));
  ASSERT_TRUE(early.freeze());

  Reader reader;
  Arena late = make_arena("late");
  const auto made_late = publish("late", static_cast<const Word*>(late.make<Word>().value()));
  ASSERT_TRUE(made_late);
  ASSERT_TRUE(late.freeze());
  const auto published_late = publish("published late", word);
  ASSERT_TRUE(published_late);

  EXPECT_EQ(reader.read(made_early), "the object");
  EXPECT_EQ(reader.read(*made_late), "published_too_late");
  EXPECT_EQ(reader.read(*published_late), "published_too_late");
  EXPECT_EQ(reader.read(withdrawn), "released");
  EXPECT_EQ(reader.read({}), "null_reference");
  auto foreign = made_early.bits();
  ++foreign.tree;
  EXPECT_EQ(reader.read(WordRef(foreign)), "wrong_process_tree");
  EXPECT_TRUE(reader.ended_well()) << "never a crash";
}

TEST(RawPointers, WithCowshedATypeIsChecked) {
  Arena arena = make_arena("typed");
  const auto number = publish(static_cast<const int*>(arena.make<int>(5).value())).value();
  const auto as_word = WordRef(number.bits()).get();
  ASSERT_FALSE(as_word);
  EXPECT_EQ(as_word.error().code, ErrorCode::wrong_type);
}

TEST(RawPointers, WithCowshedATemporaryIsRefusedWhenItIsPublished) {
  const Word temporary{};
  const auto refused = publish("temporary", &temporary);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::not_in_arena);
}

TEST(RawPointers, WithCowshedCleanUpIsAutomatic) {
  std::optional<WordRef> ref;
  {
    Arena arena = make_arena("scoped");
    ref = publish("scoped", static_cast<const Word*>(arena.make<Word>().value())).value();
    EXPECT_TRUE(ref->get());
  }
  EXPECT_EQ(ref->get().error().code, ErrorCode::released);
  EXPECT_EQ(find<Word>("scoped").error().code, ErrorCode::not_published);
}

}  // namespace
}  // namespace cowshed
