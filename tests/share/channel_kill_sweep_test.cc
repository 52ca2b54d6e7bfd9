#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <optional>
#include <sstream>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <cowshed/share/channel.h>
#include <cowshed/tests/support/single_step.h>

#include "channel_memory.h"
#include "channel_traffic.h"
#include "child.h"
#include "open_descriptors.h"

// A process dies, or stops and goes on later, at each point of a call in turn.  To those that it
// leaves it is one whether a process dies before or after an instruction that neither enters the
// kernel nor changes shared memory.
namespace cowshed::test {
namespace {

using testing::AnyOf;
using testing::IsEmpty;

enum class Points { changes, all };

// Of `all` points each that changes what others see, and of those between each third one; of a call
// that is longer than kMostPoints (one that takes memory from the kernel looks for the limits of
// all cgroups first) only each instruction's first turn.
constexpr std::size_t kMostPoints = 5000;
constexpr std::size_t kStride = 3;

template <class Messages, ChannelForm form>
struct Case {
  using Traffic = Messages;
  static constexpr ChannelForm kForm = form;
};

template <class Case>
class ChannelKillSweep : public testing::Test {
 protected:
  using Traffic = typename Case::Traffic;
  using Of = typename Traffic::Of;
  static constexpr bool kSingle = Case::kForm == ChannelForm::single_producer_single_consumer;
  // Messages by whom.
  static constexpr std::uint64_t kFirst = 1;
  static constexpr std::uint64_t kVictims = 2;
  static constexpr std::uint64_t kOthers = 3;

  void TearDown() override {
    channel_.reset();
    EXPECT_EQ(test::open_descriptors(), descriptors_);
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
  }

  // For each point of the victim's action, the return from it included: `prepare` a new channel,
  // run the victim to there, `check`.  Returns how many points there were.
  std::size_t at_each_point(Points which, const std::function<void()>& prepare,
                            const SteppedChild::Body& body,
                            const std::function<void(SteppedChild&)>& check) {
    SteppedChild::Path path = path_of(prepare, body);
    bool astray = false;
    std::size_t points = 0;
    for (std::size_t k = 0; !HasFailure();) {
      SCOPED_TRACE("after instruction " + std::to_string(k));
      make_channel(prepare);
      SteppedChild victim(body);
      if (astray) {
        victim.step(k);
      } else if (!victim.step_along(path, k)) {
        astray = true;
        path = path_of(prepare, body);
        continue;
      }
      astray = false;
      check(victim);
      ++points;
      path_points_ = path.size();
      if (victim_returned_ || k >= path.size() - 1) {
        break;
      }
      k = next_point(path, k, which);
    }
    return points;
  }

  // Which handles it the way that a victim's end is to be handled.
  void end(SteppedChild& victim) {
    victim_returned_ = victim.has_returned();
    victim.kill();
  }
  void stop(SteppedChild& victim) {
    victim_returned_ = victim.has_returned();
    victim.stop();
  }

  Of& channel() { return *channel_; }

  // Runs it here, or, where only one process may have a role, in a child that gives it up again.
  static std::string elsewhere(const std::function<std::string()>& body) {
    return kSingle ? run_in_child(body).said : body();
  }

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
    ASSERT_EQ(elsewhere([&] { return send_one(kFirst); }), "sent");
    ASSERT_EQ(elsewhere([&] { return send_one(kOthers); }), "sent");
    ASSERT_EQ(drain(), "1 3 ");
  }

  std::uint64_t lost() { return channel().stats().lost.size(); }

  // One that has sent before, or not.
  SteppedChild::Body sender(bool warm) {
    return {.before =
                [this, warm] {
                  prepared_ = Traffic::prepare(kVictims);
                  if (warm && !Traffic::try_send(channel(), kFirst)) {
                    _exit(EXIT_FAILURE);
                  }
                },
            .action = [this] { succeeded_ = Traffic::send(channel(), *prepared_).has_value(); },
            .after = [this] { _exit(succeeded_ ? EXIT_SUCCESS : EXIT_FAILURE); }};
  }
  SteppedChild::Body receiver() {
    return {.before = [] {},
            .action =
                [this] {
                  auto message = channel().receive();
                  succeeded_ = message.has_value();
                  if (message) {
                    message_.emplace(std::move(*message));
                  }
                },
            .after =
                [this] {
                  succeeded_ = succeeded_ && Traffic::id_of(*message_) == kFirst;
                  message_.reset();
                  // Empties its hand; _exit(2) does not.
                  succeeded_ = succeeded_ && !channel().try_receive().has_value();
                  _exit(succeeded_ ? EXIT_SUCCESS : EXIT_FAILURE);
                }};
  }

  // What a dead process must not leave.
  void expect_nothing_left() {
    const ChannelStats stats = channel().stats();
    EXPECT_EQ(stats.outstanding, 0);
    EXPECT_EQ(stats.processes, 1);
    EXPECT_EQ(stats.sent, stats.received);
  }

  void report(const char* what, std::size_t points, const std::string& more) const {
    std::printf("%s%s, %s: %zu of %zu points, %s\n", Traffic::kName, kSingle ? ", single" : "",
                what, points, path_points_, more.c_str());
  }

 private:
  static std::size_t next_point(const SteppedChild::Path& path, std::size_t k, Points which) {
    for (std::size_t others = 0; ++k < path.size() - 1;) {
      const bool counts = which == Points::all && (path.size() <= kMostPoints || path.is_new(k));
      if (path.changed[k] || (counts && ++others == kStride)) {
        break;
      }
    }
    return k;
  }
  void make_channel(const std::function<void()>& prepare) {
    channel_.emplace(Of::create({.name = "sweep", .slots = 4, .form = Case::kForm}).value());
    prepare();
  }
  SteppedChild::Path path_of(const std::function<void()>& prepare, const SteppedChild::Body& body) {
    make_channel(prepare);
    const ChannelMemory memory(channel());
    return SteppedChild(body).run_stepped([&] { return memory.hash(); });
  }

  std::size_t descriptors_ = test::open_descriptors();
  std::optional<Of> channel_;
  std::optional<typename Traffic::Prepared> prepared_;
  std::optional<std::decay_t<decltype(*std::declval<Of&>().receive())>> message_;
  bool succeeded_ = false;
  bool victim_returned_ = false;
  std::size_t path_points_ = 0;
};

using Cases = testing::Types<
    Case<Values, ChannelForm::general>, Case<Values, ChannelForm::single_producer_single_consumer>,
    Case<CopiedBytes<100>, ChannelForm::general>, Case<CopiedBytes<1000>, ChannelForm::general>,
    Case<MovedBuffers<20000>, ChannelForm::general>,
    Case<MovedBuffers<20000>, ChannelForm::single_producer_single_consumer>,
    Case<MovedBuffers<4U << 20U>, ChannelForm::general>>;
TYPED_TEST_SUITE(ChannelKillSweep, Cases);

TYPED_TEST(ChannelKillSweep, SenderIsKilled) {
  for (const bool warm : {false, true}) {
    const std::string before = warm ? "1 " : "";
    std::size_t sent = 0;
    const std::size_t points = this->at_each_point(
        Points::changes, [&] { this->exchange_two(); }, this->sender(warm),
        [&](SteppedChild& victim) {
          const bool returned = victim.has_returned();
          this->end(victim);
          ASSERT_EQ(this->elsewhere([&] { return this->send_one(this->kOthers); }), "sent");
          const std::string received = this->drain();
          ASSERT_THAT(received, AnyOf(before + "3 ", before + "2 3 "));
          sent += received == before + "2 3 " ? 1 : 0;
          ASSERT_TRUE(!returned || received == before + "2 3 ");
          ASSERT_EQ(this->lost(), 0);
          this->expect_nothing_left();
        });
    EXPECT_LT(sent, points);
    this->report(warm ? "sender killed" : "sender killed in its first call", points,
                 "had sent at " + std::to_string(sent));
  }
}

TYPED_TEST(ChannelKillSweep, ReceiverIsKilled) {
  std::size_t taken = 0;
  const std::size_t points = this->at_each_point(
      Points::changes,
      [&] {
        ASSERT_EQ(this->send_one(this->kFirst), "sent");
        ASSERT_EQ(this->send_one(this->kOthers), "sent");
      },
      this->receiver(),
      [&](SteppedChild& victim) {
        const bool returned = victim.has_returned();
        const pid_t pid = victim.pid();
        this->end(victim);
        const std::string received = this->elsewhere([&] { return this->drain(); });
        ASSERT_THAT(received, AnyOf("1 3 ", "3 "));
        ASSERT_TRUE(!returned || received == "3 ");
        const ChannelStats stats = this->channel().stats();
        if (received == "1 3 ") {
          ASSERT_THAT(stats.lost, IsEmpty());
        } else {
          ++taken;
          ASSERT_EQ(stats.lost.size(), 1);
          ASSERT_EQ(stats.lost[0].receiver, pid);
          ASSERT_EQ(stats.lost[0].first, 0);
          ASSERT_EQ(stats.lost[0].count, 1);
        }
        this->expect_nothing_left();
      });
  EXPECT_LT(taken, points);
  this->report("receiver killed", points, "had received at " + std::to_string(taken));
}

TYPED_TEST(ChannelKillSweep, SenderIsStopped) {
  std::size_t refused = 0;
  const std::size_t points = this->at_each_point(
      Points::all, [&] { this->exchange_two(); }, this->sender(true),
      [&](SteppedChild& victim) {
        this->stop(victim);
        const std::string sent = this->elsewhere([&] { return this->send_one(this->kOthers); });
        ASSERT_THAT(sent, AnyOf("sent", "peer_stopped", "in_use"));
        refused += sent == "sent" ? 0 : 1;
        std::string received = this->drain();
        ASSERT_EQ(victim.go_on(), 0);
        received += this->drain();
        if (sent == "sent") {
          ASSERT_THAT(received, AnyOf("1 2 3 ", "1 3 2 "));
        } else {
          ASSERT_EQ(received, "1 2 ");
        }
        ASSERT_EQ(this->lost(), 0);
        this->expect_nothing_left();
      });
  ASSERT_GT(refused, 0);
  this->report("sender stopped", points, "others were refused at " + std::to_string(refused));
}

TYPED_TEST(ChannelKillSweep, ReceiverIsStopped) {
  std::size_t refused = 0;
  const std::size_t points = this->at_each_point(
      Points::all, [&] { ASSERT_EQ(this->send_one(this->kFirst), "sent"); }, this->receiver(),
      [&](SteppedChild& victim) {
        this->stop(victim);
        const std::string meanwhile = this->elsewhere([&] { return this->drain(); });
        ASSERT_THAT(meanwhile, AnyOf("1 ", "", "peer_stopped", "in_use"));
        refused += meanwhile == "1 " || meanwhile.empty() ? 0 : 1;
        if (meanwhile == "1 ") {
          ASSERT_EQ(this->send_one(this->kFirst), "sent");  // the victim waits for one
        }
        ASSERT_EQ(victim.go_on(), 0);
        ASSERT_EQ(this->elsewhere([&] { return this->drain(); }), "");
        ASSERT_EQ(this->lost(), 0);
        this->expect_nothing_left();
      });
  ASSERT_GT(refused, 0);
  this->report("receiver stopped", points, "others were refused at " + std::to_string(refused));
}

}  // namespace
}  // namespace cowshed::test
