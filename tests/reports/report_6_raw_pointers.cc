// The report: sharing by id()/raw pointer with ref()/deref() works only if the object lived before
// the fork, breaks for temporaries, and leaves clean-up by hand.

#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

struct Word {
  std::array<char, 100> text;
};
using WordRef = Ref<Word>;

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
  Channel<WordRef> refs_ = make<WordRef>({.name = "refs"});
  Channel<int> codes_ = make<int>({.name = "codes"});
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
  const auto made_late = publish("late", late.make<Word>().value());
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
  foreign.upper ^= std::uint64_t{1} << 63U;
  EXPECT_EQ(reader.read(WordRef(foreign)), "wrong_process_tree");
  EXPECT_TRUE(reader.ended_well()) << "never a crash";
}

TEST(RawPointers, WithCowshedATemporaryIsRefusedWhenItIsPublished) {
  const Word temporary{};
  EXPECT_THAT(publish("temporary", &temporary), Fails(ErrorCode::not_in_arena));
}

TEST(RawPointers, WithCowshedCleanUpIsAutomatic) {
  WordRef ref;
  {
    const ArenaOf<Word> scoped;
    ref = scoped.ref;
    EXPECT_EQ(outcome(ref), "ok");
  }
  EXPECT_EQ(outcome(ref), "released");
  EXPECT_THAT(find<Word>("index"), Fails(ErrorCode::not_published));
}

}  // namespace
}  // namespace cowshed
