#include <cowshed/tests/support/single_step.h>

#include "memory.h"
#include "traffic.h"

// A process dies, or stops and goes on later, at each point of a call in turn.  To the others it is
// the same whether a process dies before or after an instruction that neither enters the kernel nor
// changes shared memory.
namespace cowshed::test {
namespace {

using testing::AnyOf;

enum class Points { changes, all };

// Of `all` points each that changes what others see, and of those between each third one.  Of a
// call that is longer than kMostPoints (one that takes memory from the kernel first looks for the
// limits of all cgroups) only each instruction's first turn.
constexpr std::size_t kMostPoints = 5000;
constexpr std::size_t kStride = 3;

// Messages by whom.
constexpr std::uint64_t kFirst = 1;
constexpr std::uint64_t kVictims = 2;
constexpr std::uint64_t kOthers = 3;

template <class Traffic>
class ChannelKillSweep : public LeavesNothing {
 protected:
  using Of = typename Traffic::Of;
  using Step = std::function<void(SteppedChild&)>;

  void TearDown() override {
    channel_.reset();
    LeavesNothing::TearDown();
  }

  // For each point of the victim's action, the return from it included: `prepare` a new channel,
  // `begin` with the victim, run it to there, `check`.  Returns how many points there were.
  std::size_t at_each_point(
      Points which, const std::function<void()>& prepare, const SteppedChild::Body& body,
      const Step& check, const Step& begin = [](SteppedChild&) {}) {
    SteppedChild::Path path = path_of(prepare, body, begin);
    bool astray = false;
    std::size_t points = 0;
    for (std::size_t k = 0; !HasFailure();) {
      SCOPED_TRACE("after instruction " + std::to_string(k));
      make_channel(prepare);
      SteppedChild victim(body);
      begin(victim);
      if (astray) {
        victim.step(k);
      } else if (!victim.step_along(path, k)) {
        astray = true;
        path = path_of(prepare, body, begin);
        continue;
      }
      astray = false;
      returned_ = victim.has_returned();
      check(victim);
      ++points;
      if (returned_ || k >= path.size() - 1) break;
      k = next_point(path, k, which);
    }
    return points;
  }
  SteppedChild::Path path_of(
      const std::function<void()>& prepare, const SteppedChild::Body& body,
      const Step& begin = [](SteppedChild&) {}) {
    make_channel(prepare);
    const ChannelMemory memory(channel());
    SteppedChild victim(body);
    begin(victim);
    return victim.run_stepped([&] { return memory.hash(); });
  }

  Of& channel() { return *channel_; }
  // Whether the victim's action had returned.
  bool returned() const { return returned_; }

  // "id id ..." of what there is now, and why there is no more unless it is empty.
  std::string drain() {
    std::string ids;
    for (;;) {
      const auto message = channel().try_receive();
      if (!message) {
        const ErrorCode code = message.error().code;
        return code == ErrorCode::would_block ? ids : ids + std::string(to_string(code));
      }
      ids += std::to_string(Traffic::id_of(*message)) + " ";
    }
  }
  std::string send_one(std::uint64_t id) {
    const auto sent = Traffic::try_send(channel(), id);
    return sent ? "sent" : std::string(to_string(sent.error().code));
  }

  // After it this process is the receiver, and the channel has memory for two messages.
  void exchange_two() {
    ASSERT_EQ(send_one(kFirst), "sent");
    ASSERT_EQ(send_one(kOthers), "sent");
    ASSERT_EQ(drain(), "1 3 ");
  }

  // One that has sent before, or not.
  SteppedChild::Body sender(bool warm) {
    return {.before =
                [this, warm] {
                  prepared_ = Traffic::prepare(kVictims);
                  if (warm && !Traffic::try_send(channel(), kFirst)) _exit(EXIT_FAILURE);
                },
            .action = [this] { succeeded_ = Traffic::send(channel(), *prepared_).has_value(); },
            .after = [this] { _exit(succeeded_ ? EXIT_SUCCESS : EXIT_FAILURE); }};
  }
  SteppedChild::Body receiver() {
    return {.before = [] {},
            .action = [this] { message_.emplace(channel().receive()); },
            .after =
                [this] {
                  succeeded_ = *message_ && Traffic::id_of(**message_) == kFirst;
                  message_.reset();
                  // Empties its hand; _exit(2) does not.
                  succeeded_ = succeeded_ && !channel().try_receive().has_value();
                  _exit(succeeded_ ? EXIT_SUCCESS : EXIT_FAILURE);
                }};
  }

  // The sweeps: `prepare` a new channel, and the victim's action is cut off at each point.

  // Whatever was there `before` stays.
  void kill_sender(const std::function<void()>& prepare, const SteppedChild::Body& body,
                   const std::string& before) {
    std::size_t sent = 0;
    const std::size_t points = at_each_point(Points::changes, prepare, body, [&](auto& victim) {
      victim.kill();
      ASSERT_EQ(send_one(kOthers), "sent");
      const std::string received = drain();
      ASSERT_THAT(received, AnyOf(before + "3 ", before + "2 3 "));
      sent += received == before + "2 3 " ? 1 : 0;
      ASSERT_TRUE(!returned() || received == before + "2 3 ");
      expect_nothing_left();
    });
    EXPECT_LT(0, sent);
    EXPECT_LT(sent, points);
  }
  // It takes message `number`, a kFirst, after which the channel has `rest`.
  void kill_receiver(const std::function<void()>& prepare, const SteppedChild::Body& body,
                     std::uint64_t number, const std::string& rest) {
    std::size_t taken = 0;
    const std::size_t points = at_each_point(Points::changes, prepare, body, [&](auto& victim) {
      const pid_t pid = victim.pid();
      victim.kill();
      const std::string received = drain();
      ASSERT_THAT(received, AnyOf("1 " + rest, rest));
      ASSERT_TRUE(!returned() || received == rest);
      expect_nothing_left(received == rest ? 1 : 0);
      for (const LostMessages& lost : channel().stats().lost) {
        ++taken;
        ASSERT_EQ(lost.receiver, pid);
        ASSERT_EQ(lost.first, number);
        ASSERT_EQ(lost.count, 1);
      }
    });
    EXPECT_LT(0, taken);
    EXPECT_LT(taken, points);
  }
  void stop_sender(const std::function<void()>& prepare, const SteppedChild::Body& body,
                   const std::string& before) {
    std::size_t refused = 0;
    at_each_point(Points::all, prepare, body, [&](auto& victim) {
      victim.stop();
      const std::string sent = send_one(kOthers);
      ASSERT_THAT(sent, AnyOf("sent", "peer_stopped"));
      refused += sent == "sent" ? 0 : 1;
      std::string received = drain();
      ASSERT_EQ(victim.go_on(), 0);
      received += drain();
      if (sent == "sent") ASSERT_THAT(received, AnyOf(before + "2 3 ", before + "3 2 "));
      else ASSERT_EQ(received, before + "2 ");
      expect_nothing_left();
    });
    EXPECT_GT(refused, 0);
  }
  void stop_receiver(const std::function<void()>& prepare, const SteppedChild::Body& body) {
    std::size_t refused = 0;
    at_each_point(Points::all, prepare, body, [&](auto& victim) {
      victim.stop();
      const std::string meanwhile = drain();
      ASSERT_THAT(meanwhile, AnyOf("1 ", "", "peer_stopped"));
      refused += meanwhile == "peer_stopped" ? 1 : 0;
      if (meanwhile == "1 ") ASSERT_EQ(send_one(kFirst), "sent");  // the victim waits for one
      ASSERT_EQ(victim.go_on(), 0);
      ASSERT_EQ(drain(), "");
      expect_nothing_left();
    });
    EXPECT_GT(refused, 0);
  }

  // What a dead process must not leave.
  void expect_nothing_left(std::size_t lost = 0) {
    const ChannelStats stats = channel().stats();
    EXPECT_EQ(stats.lost.size(), lost);
    EXPECT_EQ(stats.outstanding, 0);
    EXPECT_EQ(stats.processes, 1);
    EXPECT_EQ(stats.sent, stats.received);
  }

 private:
  static std::size_t next_point(const SteppedChild::Path& path, std::size_t k, Points which) {
    for (std::size_t others = 0; ++k < path.size() - 1;) {
      const bool counts = which == Points::all && (path.size() <= kMostPoints || path.is_new(k));
      if (path.changed[k] || (counts && ++others == kStride)) break;
    }
    return k;
  }
  void make_channel(const std::function<void()>& prepare) {
    channel_.emplace(Of::create({.name = "sweep", .slots = 4}).value());
    prepare();
  }

  std::optional<Of> channel_;
  std::optional<typename Traffic::Prepared> prepared_;
  std::optional<std::decay_t<decltype(std::declval<Of&>().receive())>> message_;
  bool succeeded_ = false;
  bool returned_ = false;
};

using Cases = testing::Types<Values, CopiedBytes<100>, CopiedBytes<1000>, MovedBuffers<20000>,
                             MovedBuffers<4U << 20U>>;
TYPED_TEST_SUITE(ChannelKillSweep, Cases);

TYPED_TEST(ChannelKillSweep, SenderIsKilled) {
  for (const bool warm : {false, true})
    this->kill_sender([&] { this->exchange_two(); }, this->sender(warm), warm ? "1 " : "");
}

TYPED_TEST(ChannelKillSweep, ReceiverIsKilled) {
  const auto send_two = [&] {
    ASSERT_EQ(this->send_one(kFirst), "sent");
    ASSERT_EQ(this->send_one(kOthers), "sent");
  };
  this->kill_receiver(send_two, this->receiver(), 0, "3 ");
}

TYPED_TEST(ChannelKillSweep, SenderIsStopped) {
  this->stop_sender([&] { this->exchange_two(); }, this->sender(true), "1 ");
}

TYPED_TEST(ChannelKillSweep, ReceiverIsStopped) {
  this->stop_receiver([&] { ASSERT_EQ(this->send_one(kFirst), "sent"); }, this->receiver());
}

// Both locks rest with the victim, or with the others, from whom it takes the one that it needs.
class ChannelRestSweep : public ChannelKillSweep<Values>, public testing::WithParamInterface<bool> {
 protected:
  static constexpr std::uint64_t kExchanges = 100;

  void let_rest() {
    for (std::uint64_t i = 0; i < kExchanges; ++i)
      if (send_one(kFirst) != "sent" || drain() != "1 ") _exit(EXIT_FAILURE);
    const ChannelMemory memory(channel());
    const auto& control = memory.control();
    if (control.sender.lock.rests != 1 || control.receiver.lock.rests != 1) _exit(EXIT_FAILURE);
  }
  void prepare() {
    if (!GetParam()) let_rest();
  }
  SteppedChild::Body with_rest(SteppedChild::Body body) {
    body.before = [this, before = body.before] {
      if (GetParam()) let_rest();
      before();
    };
    return body;
  }
  SteppedChild::Body receiver_of_one() {
    SteppedChild::Body body = receiver();
    body.before = [this] {
      if (send_one(kFirst) != "sent") _exit(EXIT_FAILURE);
    };
    return with_rest(body);
  }
};
INSTANTIATE_TEST_SUITE_P(With, ChannelRestSweep, testing::Bool(),
                         [](const auto& which) { return which.param ? "TheVictim" : "Others"; });

TEST_P(ChannelRestSweep, SenderIsKilled) {
  kill_sender([&] { prepare(); }, with_rest(sender(false)), "");
}

TEST_P(ChannelRestSweep, ReceiverIsKilled) {
  kill_receiver([&] { prepare(); }, receiver_of_one(), kExchanges, "");
}

TEST_P(ChannelRestSweep, SenderIsStopped) {
  stop_sender([&] { prepare(); }, with_rest(sender(false)), "");
}

TEST_P(ChannelRestSweep, ReceiverIsStopped) {
  stop_receiver([&] { prepare(); }, receiver_of_one());
}

bool readable(int descriptor, int milliseconds = 0) {
  pollfd event = {descriptor, POLLIN, 0};
  return poll(&event, 1, milliseconds) == 1;
}

// The others poll the channel meanwhile.
class ChannelPollingSweep : public ChannelKillSweep<Values> {
 protected:
  bool send(std::uint64_t id) { return channel().send(Values::make(id)).has_value(); }

  // By a process of its own, which polls before it tries: 0 when it had the victim's message.
  int poll_and_receive() {
    for (int tries = 0; tries < 100000; ++tries) {
      if (!readable(descriptor_, 20000)) return 1;  // asleep
      const auto message = channel().try_receive();
      if (message) return message->id == kVictims ? 0 : 2;
      if (code_of(message) != ErrorCode::would_block &&
          code_of(message) != ErrorCode::peer_stopped) {  // the victim, which goes on or dies
        return 3;
      }
      usleep(100);
    }
    return 4;
  }

  static SteppedChild::Body body(std::function<void()> before, std::function<void()> action) {
    return {std::move(before), std::move(action), [] { _exit(EXIT_SUCCESS); }};
  }

  int descriptor_ = -1;
};

// The victim has had a message and looks for another, so that it makes the descriptor unreadable.
// At some moment of that one is sent, or refused because the victim is in the way; at each later
// point it dies.
TEST_F(ChannelPollingSweep, ReceiverIsKilled) {
  constexpr std::size_t kMoments = 10;
  const auto receive = [&] { (void)channel().try_receive(); };
  const auto prepare = [&] {
    descriptor_ = channel().descriptor().value();
    ASSERT_TRUE(send(kFirst));
  };
  const SteppedChild::Path path = path_of(prepare, body(receive, receive));
  std::size_t points = 0;
  std::size_t refused = 0;
  std::size_t taken = 0;
  for (std::size_t m = 0; m < kMoments; ++m) {
    bool sent = false;
    points += at_each_point(
        Points::changes, prepare, body(receive, receive),
        [&](SteppedChild& victim) {
          Child poller([&] { return poll_and_receive(); });
          if (++points % 4 == 0) usleep(200);  // it may have tried before the victim dies
          --points;
          victim.kill();
          refused += sent ? 0 : 1;
          ASSERT_TRUE(sent || send(kVictims));
          if (!channel().stats().lost.empty()) ++taken;
          else ASSERT_EQ(poller.wait(), 0);
        },
        [&](SteppedChild& victim) {
          if (!victim.step_along(path, (path.size() - 1) * m / kMoments))
            throw std::runtime_error("the victim went astray");
          sent = send_one(kVictims) == "sent";
        });
  }
  EXPECT_LT(taken, points);
  EXPECT_GT(refused, 0U);
  EXPECT_LT(refused, points);
}

TEST_F(ChannelPollingSweep, SenderIsKilled) {
  std::size_t sent = 0;
  const auto receive_all = [&] { return drain() == "1 " ? EXIT_SUCCESS : EXIT_FAILURE; };
  const std::size_t points = at_each_point(
      Points::changes, [&] { descriptor_ = channel().descriptor().value(); },
      body(
          [&] {
            if (!send(kFirst) || Child(receive_all).wait() != EXIT_SUCCESS) _exit(EXIT_FAILURE);
          },
          [&] { (void)send(kVictims); }),
      [&](SteppedChild& victim) {
        Child poller([&] { return poll_and_receive(); });
        victim.kill();
        if (channel().stats().sent == 2) {
          ++sent;
        } else {
          ASSERT_FALSE(returned());
          ASSERT_TRUE(send(kVictims));
        }
        ASSERT_EQ(poller.wait(), 0);
      });
  EXPECT_LT(sent, points);
  EXPECT_LT(0, sent);
}

TEST_F(ChannelPollingSweep, CloserIsKilled) {
  std::size_t closed = 0;
  const std::size_t points = at_each_point(
      Points::changes,
      [&] {
        descriptor_ = channel().descriptor().value();
        ASSERT_EQ(drain(), "");
      },
      body([] {}, [&] { channel().close(); }),
      [&](SteppedChild& victim) {
        victim.kill();
        const bool told = readable(descriptor_);
        ASSERT_TRUE(told || !channel().closed());
        ASSERT_TRUE(channel().closed() || !returned());
        closed += told ? 1 : 0;
        ASSERT_TRUE(told || send(kFirst));
        ASSERT_TRUE(readable(descriptor_));
        const auto message = channel().try_receive();
        // Who is told completes it.
        ASSERT_TRUE(told ? code_of(message) == ErrorCode::closed : message.has_value());
        ASSERT_TRUE(!told || (channel().closed() && readable(descriptor_)));
      });
  EXPECT_LT(closed, points);
}

// After it nobody polls in vain, and nobody is told of what is not there.
TEST_F(ChannelPollingSweep, WhoAsksForTheDescriptorIsKilled) {
  at_each_point(
      Points::changes, [&] { ASSERT_TRUE(send(kFirst)); },
      body([] {}, [&] { (void)channel().descriptor(); }),
      [&](SteppedChild& victim) {
        victim.kill();
        const int descriptor = channel().descriptor().value();
        ASSERT_TRUE(readable(descriptor));
        ASSERT_EQ(drain(), "1 ");
        ASSERT_FALSE(readable(descriptor));
        ASSERT_TRUE(send(kFirst));
        ASSERT_TRUE(readable(descriptor));
        ASSERT_EQ(drain(), "1 ");
        channel().close();
        ASSERT_TRUE(readable(descriptor));
        ASSERT_EQ(drain(), "closed");
        ASSERT_TRUE(readable(descriptor));
      });
}

}  // namespace
}  // namespace cowshed::test
