#include <cowshed/tests/share/settle/settling.h>

namespace cowshed {
namespace {

using test::Blocks;

// Random calls of malloc, of settle(), of reshare() and of fork(), in parents and children.
class Rounds {
 public:
  explicit Rounds(const SettleOptions& options = {}, unsigned seed = 0)
      : options_(options), random_(test::seed() + seed) {
    for (int i = 0; i < 20; ++i) blocks_.add(200'000);  // enough to settle
  }

  // Returns "", or what went wrong.
  std::string run(int rounds, int generation) {
    for (int round = 0; round < rounds; ++round) {
      std::string wrong = step(rounds, generation);
      if (wrong.empty() && round % 500 == 499 && blocks_.damage() != 0) wrong = "bytes are wrong";
      if (!wrong.empty()) return wrong + " in round " + std::to_string(round);
    }
    return blocks_.damage() == 0 ? "" : "bytes are wrong at the end";
  }
  std::size_t given_back() const { return given_back_; }

 private:
  std::size_t below(std::size_t end) { return random_() % end; }
  std::size_t some_size() {
    switch (below(40)) {
      case 0: return 200'000 + below(1'500'000);
      case 1:
      case 2: return 10'000 + below(150'000);
      default: return 1 + below(3'000);
    }
  }

  std::string step(int rounds, int generation) {
    const std::size_t choice = below(1'000);
    const std::size_t count = blocks_.count();
    if (choice < 400 || count == 0) blocks_.add(some_size());
    else if (choice < 500) blocks_.add_zeroed(some_size());
    else if (choice < 650) blocks_.resize(below(count), some_size());
    else if (choice < 950 || count > 600) blocks_.remove(below(count));
    else if (choice < 965) blocks_.rewrite(below(count));
    else if (choice < 970) malloc_trim(0);
    else if (choice < 980) return error_of(settle(options_));
    else if (choice < 983) return error_of(unsettle(options_));
    else if (choice < 986 && generation < 2) return in_child(rounds / 20, generation);
    else return error_of(reshare_some());
    return "";
  }

  Expected<Reshared> reshare_some() {
    for (std::size_t i = 0; i < blocks_.count(); i += 1 + below(4)) blocks_.touch(i);
    auto reshared = reshare({.cold_for = std::chrono::milliseconds(below(10) == 0 ? 1 : 0),
                             .threads = options_.threads,
                             .stop_timeout = options_.stop_timeout});
    if (reshared) given_back_ += reshared->given_back_bytes;
    return reshared;
  }

  template <class Result>
  static std::string error_of(const Expected<Result>& result) {
    return result || result.error().code == ErrorCode::in_use ? "" : result.error().message;
  }

  std::string in_child(int rounds, int generation) {
    const auto child = run_in_child([&] { return run(rounds, generation + 1); });
    if (child.signal != 0) return "a child died of signal " + std::to_string(child.signal);
    return child.said;
  }

  SettleOptions options_;
  std::minstd_rand random_;
  Blocks blocks_;
  std::size_t given_back_ = 0;
};

TEST(SettleRounds, KeepEachByteOfParentsAndChildren) {
  Rounds rounds;
  EXPECT_EQ(rounds.run(test::little_or(500, 10'000), 0), "");
  EXPECT_GE(rounds.given_back(), test::little_or(0U, 1U));
}

TEST(SettleRounds, KeepEachByteOfThreadsThatForkAndOfSignals) {
  Blocks blocks(2_MiB);
  const test::Flips flips(blocks[0] + 1_MiB);
  constexpr std::size_t kThreads = 3;
  std::array<std::string, kThreads> wrong;
  begin_threads(kThreads, [&](std::size_t self) {
    sigset_t alarm;  // the main thread handles it
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm, nullptr);
    Rounds rounds({.threads = OtherThreads::stop, .stop_timeout = 60s},
                  static_cast<unsigned>(self));
    wrong[self] = rounds.run(test::little_or(200, 10'000), 1);
  });
  EXPECT_THAT(wrong, testing::Each(""));
  EXPECT_FALSE(flips.are_lost());
}

}  // namespace
}  // namespace cowshed
