#include <cowshed/tests/share/settle/settling.h>

namespace cowshed {
namespace {

using test::Blocks;

// Random calls of malloc, of settle() and of fork(), in parents and children.
class Rounds {
 public:
  explicit Rounds(const SettleOptions& options = {}) : options_(options) {}

  // Returns "", or what went wrong.
  std::string run(int rounds, int generation) {
    for (int round = 0; round < rounds; ++round) {
      std::string wrong = step(rounds, generation);
      if (wrong.empty() && round % 500 == 499 && blocks_.damage() != 0) wrong = "bytes are wrong";
      if (!wrong.empty()) return wrong + " in round " + std::to_string(round);
    }
    return blocks_.damage() == 0 ? "" : "bytes are wrong at the end";
  }

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
    else if (choice < 970) blocks_.rewrite(below(count));
    else if (choice < 975) malloc_trim(0);
    else if (choice < 985) return error_of(settle(options_));
    else if (choice < 988) return error_of(unsettle(options_));
    else if (choice < 991 && generation < 2) return in_child(rounds / 20, generation);
    return "";
  }

  static std::string error_of(const Expected<Settled>& settled) {
    return settled ? "" : settled.error().message;
  }

  std::string in_child(int rounds, int generation) {
    const auto child = run_in_child([&] { return run(rounds, generation + 1); });
    if (child.signal != 0) return "a child died of signal " + std::to_string(child.signal);
    return child.said;
  }

  SettleOptions options_;
  std::minstd_rand random_{test::seed()};
  Blocks blocks_;
};

TEST(SettleRounds, KeepEachByteOfParentsAndChildren) {
  EXPECT_EQ(Rounds().run(test::little_or(500, 10'000), 0), "");
}

TEST(SettleRounds, KeepEachByteOfThreadHeaps) {
  std::string wrong;
  // The main thread waits in the kernel.
  std::thread([&] {
    Rounds rounds({.threads = OtherThreads::stop, .stop_timeout = 60s});
    wrong = rounds.run(test::little_or(500, 10'000), 2);
  }).join();
  EXPECT_EQ(wrong, "");
}

}  // namespace
}  // namespace cowshed
