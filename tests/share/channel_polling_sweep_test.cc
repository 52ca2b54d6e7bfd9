#include <cerrno>
#include <cstdio>
#include <functional>
#include <gtest/gtest.h>
#include <optional>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/share/channel.h>
#include <cowshed/tests/support/single_step.h>

#include "channel_memory.h"
#include "channels.h"
#include "process.h"

// A process dies after each instruction of a call in turn, or after each that others see something
// of, while others poll the channel.
namespace cowshed::test {
namespace {

constexpr std::size_t kMoments = 10;

bool readable(int descriptor, int milliseconds = 0) {
  pollfd event = {descriptor, POLLIN, 0};
  return poll(&event, 1, milliseconds) == 1;
}

class ChannelPollingSweep : public testing::TestWithParam<ChannelForm> {
 protected:
  static constexpr std::uint64_t kFirst = 1;
  static constexpr std::uint64_t kSecond = 2;

  void TearDown() override {
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
  }

  void make_channel() {
    channel_.emplace(make<std::uint64_t>({.name = "sweep", .slots = 4, .form = GetParam()}));
  }
  Channel<std::uint64_t>& channel() { return *channel_; }

  // After each instruction of the victim's action: `prepare`, the victim to there, `check`, which
  // ends it.  How many there were.
  std::size_t at_each_point(const std::function<void()>& prepare, const SteppedChild::Body& body,
                            const std::function<void(SteppedChild&, bool returned)>& check) {
    make_channel();
    prepare();
    const SteppedChild::Path path = SteppedChild(body).run_stepped();
    std::size_t points = 0;
    for (std::size_t k = 0; k < path.size() && !HasFailure(); ++k) {
      SCOPED_TRACE("after instruction " + std::to_string(k));
      make_channel();
      prepare();
      SteppedChild victim(body);
      if (!victim.step_along(path, k)) {
        make_channel();
        prepare();
        SteppedChild again(body);
        again.step(k);
        check(again, again.has_returned());
      } else {
        check(victim, victim.has_returned());
      }
      ++points;
    }
    return points;
  }

  // By a process of its own, which polls before it tries: 0 when it had the message, or the end,
  // that is expected.
  int poll_and_receive(int descriptor, std::optional<std::uint64_t> expected) {
    for (int tries = 0; tries < 100000; ++tries) {
      if (!readable(descriptor, 20000)) {
        return 1;  // asleep
      }
      const auto message = channel().try_receive();
      if (message) {
        return expected == *message ? 0 : 2;
      }
      switch (message.error().code) {
        case ErrorCode::closed: return expected ? 3 : 0;
        case ErrorCode::would_block:
        case ErrorCode::peer_stopped:                   // the victim, which goes on or dies
        case ErrorCode::in_use: usleep(100); continue;  // it is the consumer
        default: return 4;
      }
    }
    return 5;
  }

  // Nobody polls in vain, and nobody is told of what is not there.
  void expect_order(int descriptor) {
    while (channel().try_receive()) {
    }
    ASSERT_EQ(code_of(channel().try_receive()), ErrorCode::would_block);
    ASSERT_FALSE(readable(descriptor));
    ASSERT_TRUE(channel().send(kFirst));
    ASSERT_TRUE(readable(descriptor));
    ASSERT_EQ(channel().try_receive().value(), kFirst);
    channel().close();
    ASSERT_TRUE(readable(descriptor));
    ASSERT_EQ(code_of(channel().try_receive()), ErrorCode::closed);
    ASSERT_TRUE(readable(descriptor));
  }

  void report(const char* what, std::size_t points, const std::string& more) const {
    std::printf("%s, %s: %zu points%s\n", GetParam() == ChannelForm::general ? "general" : "single",
                what, points, more.c_str());
  }

 private:
  std::optional<Channel<std::uint64_t>> channel_;
};
INSTANTIATE_TEST_SUITE_P(Channel, ChannelPollingSweep,
                         testing::Values(ChannelForm::general,
                                         ChannelForm::single_producer_single_consumer),
                         [](const auto& test) {
                           return test.param == ChannelForm::general ? "General" : "Single";
                         });

// The victim has had a message and looks for another, so that it makes the descriptor unreadable.
// At some point of that one is sent, or refused because the victim is in the way; at each later one
// it dies.
TEST_P(ChannelPollingSweep, ReceiverIsKilled) {
  int descriptor = -1;
  std::optional<Expected<std::uint64_t>> result;
  const SteppedChild::Body body = {.before = [&] { (void)channel().try_receive(); },
                                   .action = [&] { result.emplace(channel().try_receive()); },
                                   .after = [] { _exit(EXIT_SUCCESS); }};
  const auto prepare = [&] {
    make_channel();
    descriptor = channel().descriptor().value();
    ASSERT_TRUE(channel().send(kFirst));
  };
  // Whether it was sent after the first part of the path.
  const auto send_at = [&](SteppedChild& victim, std::size_t moment,
                           const SteppedChild::Path& path) {
    if (!victim.step_along(path, moment)) {
      throw std::runtime_error("the victim went astray");
    }
    const auto sent = channel().try_send(kSecond);
    EXPECT_TRUE(sent || code_of(sent) == ErrorCode::peer_stopped);
    return sent.has_value();
  };
  const auto next = [](const SteppedChild::Path& path, std::size_t k) {
    while (++k < path.size() - 1 && !path.changed[k]) {
    }
    return k;
  };
  prepare();
  const SteppedChild::Path path = SteppedChild(body).run_stepped();
  std::size_t points = 0;
  std::size_t refused = 0;
  std::size_t taken = 0;
  for (std::size_t m = 0; m < kMoments; ++m) {
    const std::size_t moment = (path.size() - 1) * m / kMoments;
    prepare();
    SteppedChild first(body);
    send_at(first, moment, path);
    const ChannelMemory memory(channel());
    const SteppedChild::Path rest = first.run_stepped([&] { return memory.hash(); });
    first.kill();
    bool returned = false;
    for (std::size_t k = 0; !returned && !HasFailure(); k = next(rest, k)) {
      SCOPED_TRACE("sent after instruction " + std::to_string(moment) + ", killed " +
                   std::to_string(k) + " later");
      prepare();
      SteppedChild victim(body);
      const bool sent = send_at(victim, moment, path);
      ASSERT_TRUE(victim.step_along(rest, k));
      returned = victim.has_returned();
      Process poller([&] { return poll_and_receive(descriptor, kSecond); });
      if (k % 4 == 0) {
        usleep(200);  // it may have tried before the victim dies
      }
      victim.kill();
      if (!sent) {
        ++refused;
        ASSERT_TRUE(channel().send(kSecond));
      }
      if (!channel().stats().lost.empty()) {
        ++taken;
      } else {
        ASSERT_EQ(poller.wait(), 0);
      }
      ++points;
    }
  }
  EXPECT_LT(taken, points);
  EXPECT_GT(refused, 0U);
  EXPECT_LT(refused, points);
  report("receiver killed", points,
         ", at " + std::to_string(refused) + " the sender was refused, at " +
             std::to_string(taken) + " it had received");
}

TEST_P(ChannelPollingSweep, SenderIsKilled) {
  int descriptor = -1;
  std::size_t sent = 0;
  const auto receive_all = [&] {
    return channel().try_receive() && !channel().try_receive() ? EXIT_SUCCESS : EXIT_FAILURE;
  };
  const std::size_t points = at_each_point(
      [&] { descriptor = channel().descriptor().value(); },
      {.before =
           [&] {
             if (!channel().send(kFirst) || Process(receive_all).wait() != EXIT_SUCCESS) {
               _exit(EXIT_FAILURE);
             }
           },
       .action = [&] { (void)channel().send(kSecond); },
       .after = [] { _exit(EXIT_SUCCESS); }},
      [&](SteppedChild& victim, bool returned) {
        Process poller([&] { return poll_and_receive(descriptor, kSecond); });
        victim.kill();
        if (channel().stats().sent == 2) {
          ++sent;
        } else {
          ASSERT_FALSE(returned);
          ASSERT_TRUE(channel().send(kSecond));
        }
        ASSERT_EQ(poller.wait(), 0);
      });
  EXPECT_LT(sent, points);
  EXPECT_LT(0, sent);
  report("sender killed", points, ", had sent at " + std::to_string(sent));
}

TEST_P(ChannelPollingSweep, CloserIsKilled) {
  int descriptor = -1;
  std::size_t closed = 0;
  const std::size_t points = at_each_point(
      [&] {
        descriptor = channel().descriptor().value();
        ASSERT_EQ(code_of(channel().try_receive()), ErrorCode::would_block);
      },
      {.before = [] {}, .action = [&] { channel().close(); }, .after = [] { _exit(EXIT_SUCCESS); }},
      [&](SteppedChild& victim, bool returned) {
        victim.kill();
        const bool told = readable(descriptor);
        ASSERT_TRUE(told || !channel().closed());
        ASSERT_TRUE(channel().closed() || !returned);
        // Who is told completes it.
        if (told) {
          ++closed;
          ASSERT_EQ(code_of(channel().try_receive()), ErrorCode::closed);
          ASSERT_TRUE(channel().closed());
          ASSERT_TRUE(readable(descriptor));
        } else {
          ASSERT_TRUE(channel().send(kFirst));
          ASSERT_TRUE(readable(descriptor));
          ASSERT_EQ(channel().try_receive().value(), kFirst);
        }
      });
  EXPECT_LT(closed, points);
  report("closer killed", points, ", had closed at " + std::to_string(closed));
}

TEST_P(ChannelPollingSweep, WhoAsksForTheDescriptorIsKilled) {
  const std::size_t points = at_each_point([&] { ASSERT_TRUE(channel().send(kFirst)); },
                                           {.before = [] {},
                                            .action = [&] { (void)channel().descriptor(); },
                                            .after = [] { _exit(EXIT_SUCCESS); }},
                                           [&](SteppedChild& victim, bool) {
                                             victim.kill();
                                             const int descriptor = channel().descriptor().value();
                                             ASSERT_TRUE(readable(descriptor));
                                             expect_order(descriptor);
                                           });
  report("asker killed", points, "");
}

}  // namespace
}  // namespace cowshed::test
