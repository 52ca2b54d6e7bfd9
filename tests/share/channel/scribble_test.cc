#include "memory.h"

namespace cowshed {
namespace {

using namespace channel_layout;

// A party that has gone wrong overwrites a channel's memory while others use the channel.  They get
// values or errors; their own memory stays as it is.
int rounds() { return test::little_or(500, 10'000); }

// Private memory of a known content.
class Canary {
 public:
  // Anywhere, or, where nothing is yet, at `place`.
  explicit Canary(std::byte* place = nullptr) {
    void* memory =
        mmap(place, kBytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | (place == nullptr ? 0 : MAP_FIXED_NOREPLACE), -1, 0);
    if (memory != MAP_FAILED) {
      words_ = {static_cast<std::uint64_t*>(memory), kBytes / sizeof(std::uint64_t)};
      std::fill(words_.begin(), words_.end(), kWord);
    }
  }
  ~Canary() {
    if (!words_.empty()) munmap(words_.data(), kBytes);
  }
  Canary(const Canary&) = delete;
  Canary& operator=(const Canary&) = delete;

  bool alive() const {
    return std::all_of(words_.begin(), words_.end(), [](auto word) { return word == kWord; });
  }

  static constexpr std::size_t kBytes = 64U << 10U;

 private:
  static constexpr std::uint64_t kWord = 0x5ca1ab1e'0ddba115;
  std::span<std::uint64_t> words_;
};

// In the reader's memory on both sides of each mapping of the channel.
class Canaries {
 public:
  explicit Canaries(Channel<Bytes>& channel) {
    for (std::size_t size = kLeastBlock; channel.try_loan(size); size *= 2) {  // maps each size
    }
    for (const test::Mapping& mapping : test::all_mappings()) {
      if (mapping.name.starts_with("/memfd:cowshed-channel:" + channel.name()) &&
          mapping.end - mapping.begin > kPage) {
        canaries_.emplace_back(reinterpret_cast<std::byte*>(mapping.begin - Canary::kBytes));
        canaries_.emplace_back(reinterpret_cast<std::byte*>(mapping.end));
      }
    }
  }
  bool alive() const {
    return std::all_of(canaries_.begin(), canaries_.end(),
                       [](const Canary& canary) { return canary.alive(); });
  }

 private:
  std::deque<Canary> canaries_ = std::deque<Canary>(1);  // the first lies anywhere
};

// Writes into a channel's memory.
class Scribbler {
 public:
  Scribbler(const Channel<Bytes>& channel, unsigned seed)
      : memory_(channel), plan_(memory_.constants()), random_(seed) {}

  // A word of any kind, anywhere in what is neither constants nor payload.
  void anywhere() {
    const std::uint64_t place = kPage + below((plan_.base_bytes - kPage) / 8) * 8;
    set(memory_.at(place), random_() % 2 == 0 ? random_() : extreme());
  }

  // Something that could nearly be, where it matters.
  void by_layout() {
    Control& control = memory_.control();
    const auto slot = [&] {
      return plan_.ring + below(plan_.places << plan_.chunk_shift) * plan_.slot_bytes;
    };
    switch (below(12)) {
      case 0: return set(memory_.at(slot()), size());
      case 1: return set_half(slot() + 16, below(plan_.blocks + 2));
      case 2: return set(memory_.at(slot() + 24 + below(3) * 8), extreme());
      case 3:
      case 4:
      case 5:
        // Most often of a block that is in use.
        return set(memory_.at(Plan::kWords + used_block() * 8), below(4) | below(2) * (~0U - 3) |
                                                                    below(1U << 30U) << 2U |
                                                                    std::uint64_t{party()} << 32U);
      case 6:
        return set_half(kPage + offsetof(Control, places) + below(8) * 4,
                        below(2) == 0 ? extreme() : below(4) << 16U | below(4));
      case 7:
        return set(reinterpret_cast<std::byte*>(below(2) == 0 ? &control.tail : &control.head),
                   control.head.value.load() + below(plan_.slots * 2) - plan_.slots / 2);
      case 8:
        return set(
            reinterpret_cast<std::byte*>(&control.seldom) + below(sizeof control.seldom / 8) * 8,
            below(4) == 0 ? extreme() : below(3));
      case 9:
        return set_half(kPage + offsetof(Control, free_from) + below(kClasses) * 4, extreme());
      case 10:
        return set(
            reinterpret_cast<std::byte*>(&control.parties[below(4)]) + below(sizeof(Party) / 8) * 8,
            below(2) == 0 ? extreme() : party());
      default:
        return set(reinterpret_cast<std::byte*>(&control.hands[below(4)]) + below(2) * 8,
                   below(2) == 0 ? extreme() : std::uint64_t{party()} << 32U | below(2));
    }
  }

  // How much a block has that is in use.
  void inflate_a_block() {
    auto* word =
        reinterpret_cast<std::atomic<std::uint64_t>*>(memory_.at(Plan::kWords)) + used_block();
    const std::uint64_t before = word->load();
    if (state_of(before) != BlockState::free) {
      word->store(before | 0xffff'fffcU);
      word->store(before);
    }
  }

 private:
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  std::uint64_t used_block() {
    for (int i = 0; i < 64; ++i) {
      const std::uint64_t block = plan_.first[below(plan_.classes)] + below(2);
      if (block < plan_.blocks &&
          state_of(memory_.word(static_cast<std::uint32_t>(block))) != BlockState::free) {
        return block;
      }
    }
    return below(plan_.blocks);
  }
  PartyId party() {
    return below(4) == 0 ? static_cast<PartyId>(random_())
                         : static_cast<PartyId>(kGeneration * below(3) + below(4));
  }
  std::uint64_t size() { return below(2) == 0 ? extreme() : below(plan_.most_bytes * 2); }
  std::uint64_t extreme() {
    const std::uint64_t one = std::uint64_t{1} << below(64);
    return below(2) == 0 ? one - below(2) : ~one + below(3);
  }
  static void set(std::byte* place, std::uint64_t value) {
    reinterpret_cast<std::atomic<std::uint64_t>*>(place)->store(value);
  }
  void set_half(std::uint64_t place, std::uint64_t value) {
    reinterpret_cast<std::atomic<std::uint32_t>*>(memory_.at(place))
        ->store(static_cast<std::uint32_t>(value));
  }

  test::ChannelMemory memory_;
  Plan plan_;
  std::mt19937_64 random_;
};

// Uses a channel in all ways.
class User {
 public:
  User(Channel<Bytes> channel, unsigned seed) : channel_(std::move(channel)), random_(seed) {}

  void act() {
    switch (random_() % 12) {
      case 0:
      case 1: return done(channel_.try_send(of_size(random_() % 200)));
      case 2: return done(channel_.try_send(of_size(random_() % 70'000)));
      case 3:
        if (auto buffer = channel_.try_loan(random_() % 70'000)) {
          touch(buffer->span());
          done(std::move(*buffer).try_commit());
        }
        return;
      case 4:
      case 5:
      case 6: return receive();
      case 7:
      case 8:
      case 9:
        if (!held_.empty()) {
          forward(held_.back());
          held_.pop_back();
        }
        return;
      case 10: return random_() % 8 == 0 ? static_cast<void>(channel_.stats()) : held_.clear();
      default: return seldom();
    }
  }

  std::uint64_t values() const { return values_; }
  std::uint64_t errors() const { return errors_; }

 private:
  template <class T>
  void done(const Expected<T>& result) {
    ++(result ? values_ : errors_);
  }
  std::span<const std::byte> of_size(std::size_t size) { return std::span(source_).first(size); }
  static void touch(std::span<std::byte> bytes) {
    if (!bytes.empty()) {
      bytes.front() ^= std::byte{1};
      bytes.back() ^= std::byte{1};
    }
  }
  void receive() {
    auto bytes = channel_.try_receive();
    done(bytes);
    if (bytes) {
      touch(bytes->span());
      held_.push_back(std::move(*bytes));
    }
    if (held_.size() > 6) held_.erase(held_.begin());
  }
  void forward(Bytes& bytes) { done(channel_.try_send(std::move(bytes))); }
  void seldom() {
    switch (random_() % 16) {
      case 0: return done(channel_.send(of_size(300), 1us));
      case 1: return done(channel_.receive(1us));
      case 2: return done(channel_.loan(300'000, 1us));
      case 3: return done(channel_.descriptor());
      case 4: channel_.close(); return;
      default: return receive();
    }
  }

  Channel<Bytes> channel_;
  std::vector<std::byte> source_ = std::vector<std::byte>(70'000);
  std::vector<Bytes> held_;
  std::mt19937 random_;
  std::uint64_t values_ = 0;
  std::uint64_t errors_ = 0;
};

class ChannelScribble : public testing::Test {
 protected:
  static constexpr int kRoundsOfOneChannel = 50;

  Channel<Bytes> channel() const {
    return make<Bytes>({.name = "scribbled", .slots = 8, .memory = 512U << 10U});
  }

  template <class Scribble>
  void survive(Scribble&& scribble) {
    std::uint64_t values = 0;
    std::uint64_t errors = 0;
    for (int round = 0; round < rounds();) {
      auto scribbled = channel();
      const Canaries canaries(scribbled);
      User user(scribbled, static_cast<unsigned>(round));
      Scribbler scribbler(scribbled, static_cast<unsigned>(round));
      for (int i = 0; i < kRoundsOfOneChannel && round < rounds(); ++i, ++round) {
        user.act();
        user.act();
        scribble(scribbler);
        user.act();
      }
      ASSERT_TRUE(canaries.alive()) << "by round " << round;
      values += user.values();
      errors += user.errors();
    }
    EXPECT_GT(values, 0);
    EXPECT_GT(errors, 0);
  }
};

TEST_F(ChannelScribble, RandomWordsHarmNothingOfTheReaders) {
  survive([](Scribbler& scribbler) { scribbler.anywhere(); });
}

TEST_F(ChannelScribble, WordsThatNearlyFitHarmNothingOfTheReaders) {
  survive([](Scribbler& scribbler) { scribbler.by_layout(); });
}

// What a call has checked is changed before it uses it.
TEST_F(ChannelScribble, WordsThatChangeDuringACallHarmNothingOfTheReaders) {
  for (int round = 0; round < rounds(); round += kRoundsOfOneChannel * 10) {
    auto scribbled = channel();
    const Canaries canaries(scribbled);
    User user(scribbled, static_cast<unsigned>(round));
    const Child peer([&] {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      Scribbler scribbler(scribbled, static_cast<unsigned>(round));
      for (;;) scribbler.inflate_a_block();
      return 0;
    });
    for (int i = 0; i < kRoundsOfOneChannel * 10; ++i) user.act();
    ASSERT_TRUE(canaries.alive()) << "by round " << round;
    EXPECT_GT(user.values(), 0);
  }
}

}  // namespace
}  // namespace cowshed
