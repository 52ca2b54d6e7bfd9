#include <bit>
#include <cmath>

#include <cowshed/share/wire/message.h>
#include <cowshed/tests/share/workers/every_method.h>

#include "traffic.h"

// Four senders and four receivers, started by fork, spawn and a forkserver of a process that owns
// them.  At random moments some of them, the forkserver or the owner are killed, or stopped and
// continued, and others take their place.  Each message is received at most once, and exactly once
// unless its receiver was killed with it in hand.  The others go on.
namespace cowshed::test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMoments = test::sized<int>(200, 20);
constexpr std::uint32_t kPlaces = 8;  // the first half sends
constexpr std::uint32_t kLives = 1024;
constexpr std::uint64_t kMost = std::uint64_t{1} << 24U;  // messages of one sender
constexpr auto kLimit = 60s;                              // for what takes milliseconds

// A process that sends or receives.  A sender's messages have the numbers 1, 2, ...
struct Life {
  std::atomic<pid_t> pid;   // 0: it has not begun
  std::atomic<bool> ended;  // when the channel was closed
  std::atomic<bool> produces;
  std::atomic<std::uint64_t> attempted, returned, taken;
  std::array<std::atomic<std::uint64_t>, kMost / 64> received;  // a bit for each of its messages

  std::uint64_t done() const { return returned + taken; }
};

// Memory that all of them share: a file, since spawned workers inherit no mapping.
struct Ledger {
  std::array<std::atomic<std::uint32_t>, kPlaces> wanted, begun;  // lives
  std::atomic<pid_t> server;
  std::atomic<bool> over;
  std::atomic<std::uint32_t> stops_begun, stops_over, failures;
  std::array<char, 400> first_failure;
  std::array<Life, kLives> lives;

  void fail(const std::string& what) {
    if (failures.fetch_add(1) == 0) what.copy(first_failure.data(), first_failure.size() - 1);
  }
};

std::shared_ptr<Ledger> map_ledger(const std::string& path) {
  const FileDescriptor file(open(path.c_str(), O_RDWR | O_CLOEXEC));
  void* memory = mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                      file.get(), 0);
  if (memory == MAP_FAILED) throw std::runtime_error("the ledger cannot be mapped");
  return {static_cast<Ledger*>(memory), [](Ledger* mapped) { munmap(mapped, sizeof(Ledger)); }};
}

enum class Patience : std::uint8_t { forever, timed, never };

bool is_documented(ErrorCode code, Patience patience, bool somebody_stopped) {
  switch (code) {
    case ErrorCode::closed: return true;
    case ErrorCode::would_block: return patience == Patience::never;
    case ErrorCode::timed_out: return patience == Patience::timed;
    case ErrorCode::peer_stopped: return patience != Patience::forever && somebody_stopped;
    default: return false;
  }
}

// A worker: sends or receives in one form or another until the channel is closed.
template <class Traffic>
void take_part(typename Traffic::Of& channel, const std::string& path, std::uint32_t index) {
  alarm(300);
  const auto ledger = map_ledger(path);
  Life& life = ledger->lives[index];
  life.pid = getpid();
  std::mt19937 random(index);
  std::vector<std::uint64_t> last(kLives);
  const auto note = [&](std::uint64_t id) {
    const std::uint64_t number = id % kMost;
    const std::uint64_t sender = id / kMost % kLives;
    const std::uint64_t bit = std::uint64_t{1} << (number % 64);
    if (id == kBroken) ledger->fail("a message is not whole");
    else if ((ledger->lives[sender].received[number / 64].fetch_or(bit) & bit) != 0)
      ledger->fail("message " + std::to_string(number) + " was received twice");
    else if (std::exchange(last[sender], number) >= number)
      ledger->fail("message " + std::to_string(number) + " was overtaken");
    ++life.taken;
  };
  const auto try_once = [&](Patience patience) -> Expected<void> {
    if (life.produces) {
      const std::uint64_t number = life.attempted = life.returned + 1;
      const std::uint64_t id = index * kMost + number;
      auto sent = patience == Patience::forever ? Traffic::send(channel, Traffic::prepare(id))
                                                : Traffic::try_send(channel, id);
      life.returned += sent ? 1 : 0;
      life.attempted = life.returned.load();
      return sent;
    }
    const auto message = patience == Patience::forever ? channel.receive()
                         : patience == Patience::timed ? channel.receive(2ms)
                                                       : channel.try_receive();
    return message.map([&](const auto& whole) { note(Traffic::id_of(whole)); });
  };
  while (!life.ended) {
    // No sender has the timed form.
    const auto patience = static_cast<Patience>(life.produces ? random() % 2 * 2 : random() % 3);
    const std::uint32_t stops_over = ledger->stops_over;
    const auto done = try_once(patience);
    if (!done && !is_documented(done.error().code, patience, ledger->stops_begun != stops_over))
      return ledger->fail("party " + std::to_string(index) + ": " + done.error().message);
    life.ended = !done && done.error().code == ErrorCode::closed;
  }
}

// The process that starts the wanted lives, by each method, until all is over.
template <class Traffic>
int own(typename Traffic::Of& channel, const std::string& path, Ledger& ledger) {
  alarm(300);
  std::optional<ForkServer> server;
  std::array<std::optional<Workers<>>, kPlaces> parties;
  const auto wait_for = [&](std::optional<Workers<>>& party) {
    const WorkerExit end = party ? value_of(party->wait())[0] : WorkerExit{};
    // Only a forkserver that lives can tell how its workers ended.
    if (party && !end.ok() && end.signal != SIGKILL && (end.exit_code >= 0 || end.signal != 0))
      ledger.fail(end.error);
    party.reset();
  };
  (void)channel.stats();  // takes part, and looks for the dead
  const std::size_t descriptors = open_descriptors();
  for (; !ledger.over; usleep(100)) {
    for (std::uint32_t place = 0; place < kPlaces; ++place) {
      const std::uint32_t life = ledger.wanted[place];
      if (life == ledger.begun[place]) continue;
      wait_for(parties[place]);
      WorkersOptions options = {.method = static_cast<Start>(life % 3),
                                .die_with_parent = life / 3 % 2 == 0};
      if (options.method == Start::forkserver) {
        server = server ? std::move(server) : value_of(ForkServer::start());
        ledger.server = server->pid();
        options.server = &*server;
      }
      ledger.begun[place] = life;
      auto workers = start<take_part<Traffic>>(options, channel, path, life);
      if (workers) {
        ledger.lives[life].pid = workers->processes()[0].pid();
        parties[place] = std::move(*workers);
      } else if (workers.error().code == ErrorCode::forkserver_ended) {
        server.reset();
        ledger.begun[place] = 0;
      } else {
        ledger.fail(workers.error().message);
      }
    }
  }
  std::for_each(parties.begin(), parties.end(), wait_for);
  server.reset();
  return open_descriptors() == descriptors ? 0 : 1;
}

// A process that is not reaped before this has gone, or that was gone before.
class Target {
 public:
  explicit Target(pid_t pid = 0)
      : pidfd_(pid == 0 ? -1 : static_cast<int>(syscall(SYS_pidfd_open, pid, 0))) {}

  void signal(int number) const {
    syscall(SYS_pidfd_send_signal, pidfd_.get(), number, nullptr, 0);
  }
  bool ends_within(std::chrono::milliseconds time) const {
    pollfd end = {pidfd_.get(), POLLIN, 0};
    return !pidfd_ || poll(&end, 1, static_cast<int>(time.count())) == 1;
  }

 private:
  FileDescriptor pidfd_;
};

// From the first process to the last, with some moments in between.  The test's process is a
// subreaper: it gets the parties of a dead owner.
template <class Traffic>
class ChannelRandomKill : public testing::Test {
 protected:
  struct Place {
    std::uint32_t life = 0;
    bool known = true;  // the target is this life
    Target target;
    std::uint64_t done = 0;  // messages, when it was last looked at
  };

  void SetUp() override { ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); }

  bool chance(unsigned of) { return random_() % of == 0; }
  void pause_up_to(int microseconds) {
    std::uniform_real_distribution<double> logarithm(0, std::log(microseconds));
    usleep(static_cast<useconds_t>(std::exp(logarithm(random_))));
  }
  Life& life_of(const Place& place) { return ledger_->lives[place.life]; }

  // Until each place has somebody, who may die at once.
  void refill() {
    for (const auto begin = Clock::now();; usleep(100)) {
      ASSERT_LT(Clock::now(), begin + kLimit) << "nobody begins";
      ASSERT_EQ(ledger_->failures, 0U) << ledger_->first_failure.data();
      if (!owner_ || !owner_->running()) {
        ASSERT_EQ(owner_ ? owner_->wait() : -SIGKILL, -SIGKILL);
        owner_.emplace([this] { return own<Traffic>(channel_, path_, *ledger_); });
      }
      for (std::uint32_t i = 0; i < kPlaces; ++i) {
        Place& place = places_.at(i);
        if (!place.known && life_of(place).pid != 0) {
          place.target = Target(life_of(place).pid);
          place.known = true;
        } else if (place.known && place.target.ends_within(0ms)) {
          ASSERT_LT(++lives_, kLives);
          place = Place();
          place.life = lives_;
          place.known = false;
          life_of(place).produces = i < kPlaces / 2;
          ledger_->wanted[i] = lives_;
          if (chance(8)) {  // who starts it dies meanwhile
            pause_up_to(2000);
            hit(kPlaces + random_() % 2, SIGKILL);
          }
        }
      }
      if (owner_->running() && std::all_of(places_.begin(), places_.end(), [](const Place& place) {
            return place.known && !place.target.ends_within(0ms);
          })) {
        return;
      }
    }
  }

  // A party, or after them the forkserver, or the owner.
  void hit(std::size_t whom, int signal) {
    if (whom < kPlaces) places_.at(whom).target.signal(signal);
    else if (whom == kPlaces) Target(ledger_->server).signal(signal);
    else if (owner_->running()) owner_->signal(signal);
    if (signal != SIGKILL) return;
    if (whom < kPlaces) EXPECT_TRUE(places_.at(whom).target.ends_within(kLimit));
    if (whom > kPlaces) {
      EXPECT_EQ(owner_->wait(), -SIGKILL);
      for (std::uint32_t i = 0; i < kPlaces; ++i) {
        Place& place = places_.at(i);
        if (!place.known && life_of(place).pid == 0) {  // may begin still: another gets its place
          place.known = true;
          ledger_->begun[i] = place.life;
        }
      }
    }
  }

  // A moment.
  void strike() {
    for (Place& place : places_) place.done = life_of(place).done();
    std::array<std::size_t, kPlaces + 2> victims{};
    std::iota(victims.begin(), victims.end(), 0);
    std::shuffle(victims.begin(), victims.end(), random_);
    const std::size_t count = chance(4) ? 2 + random_() % 4 : 1;
    const bool stop = chance(4);
    pause_up_to(5000);
    if (stop) {
      ++ledger_->stops_begun;
      std::for_each_n(victims.begin(), count, [&](auto whom) { hit(whom, SIGSTOP); });
      pause_up_to(20000);
    }
    std::for_each_n(victims.begin(), count,
                    [&](auto whom) { hit(whom, stop && !chance(3) ? SIGCONT : SIGKILL); });
    ledger_->stops_over += stop ? 1 : 0;
  }

  void expect_others_go_on() {
    for (Place& place : places_) {
      const auto begin = Clock::now();
      while (life_of(place).done() <= place.done) {
        ASSERT_EQ(ledger_->failures, 0U) << ledger_->first_failure.data();
        ASSERT_LT(Clock::now(), begin + kLimit) << "life " << place.life << " does nothing more";
        refill();  // some may have died with their forkserver only now
      }
    }
  }

  void end() {
    channel_.close();
    for (const Place& place : places_) EXPECT_TRUE(place.target.ends_within(kLimit));
    ledger_->over = true;
    EXPECT_EQ(owner_->wait(), 0);
    for (int status = 0; waitpid(-1, &status, 0) > 0;) {
      const bool is_orderly = WIFEXITED(status) &&
                              (WEXITSTATUS(status) <= 1 || WEXITSTATUS(status) == launch::kUnheard);
      EXPECT_TRUE(is_orderly || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) << status;
    }
    take_part<Traffic>(channel_, path_, 0);  // what is left, when the last receivers were killed
    alarm(0);
    EXPECT_EQ(ledger_->failures, 0U) << ledger_->first_failure.data();
    const ChannelStats stats = channel_.stats();
    std::uint64_t received = 0;
    std::uint64_t sure = 0;  // sent, but not received
    std::uint64_t possible = 0;
    for (std::uint32_t i = 1; i <= lives_; ++i) {
      const Life& life = ledger_->lives[i];
      std::uint64_t count = 0;
      std::uint64_t last = 0;
      for (std::uint64_t word = 0; word <= life.attempted / 64; ++word) {
        const std::uint64_t bits = life.received[word];
        count += static_cast<std::uint64_t>(std::popcount(bits));
        last = bits == 0 ? last : word * 64 + static_cast<unsigned>(std::bit_width(bits)) - 1;
      }
      const std::uint64_t sent = std::max(life.returned.load(), last);
      EXPECT_LE(sent, life.attempted);
      received += count;
      sure += sent - count;
      possible += life.attempted - sent;
    }
    for (const LostMessages& hand : stats.lost) {
      const auto its = std::find_if(ledger_->lives.begin() + 1, ledger_->lives.begin() + lives_,
                                    [&](const Life& life) { return life.pid == hand.receiver; });
      EXPECT_TRUE(!its->produces && !its->ended && hand.count == 1) << "pid " << hand.receiver;
    }
    EXPECT_EQ(stats.sent, stats.received);
    EXPECT_GE(stats.sent, received + sure);
    EXPECT_LE(stats.sent, received + std::min(stats.lost.size(), sure + possible));
    EXPECT_EQ(stats.outstanding, 0U);
    EXPECT_EQ(stats.processes, 1U);
  }

  const unsigned seed_ = seed();
  std::mt19937_64 random_{seed_};
  std::size_t descriptors_ = open_descriptors();
  typename Traffic::Of channel_ = value_of(Traffic::Of::create(
      {.name = "random-kills", .slots = 32, .memory = std::uint64_t{24} << 20U}));
  FileDescriptor file_{memfd_create("ledger", MFD_CLOEXEC)};
  std::string path_ = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(file_.get());
  int sized_ = ftruncate(file_.get(), sizeof(Ledger));
  std::shared_ptr<Ledger> ledger_ = map_ledger(path_);
  std::array<Place, kPlaces> places_;
  std::uint32_t lives_ = 0;
  std::optional<Child> owner_;
};

using Kinds = testing::Types<Values, CopiedBytes<100>, CopiedBytes<1000>, MovedBuffers<20000>,
                             MovedBuffers<5U << 20U>>;
TYPED_TEST_SUITE(ChannelRandomKill, Kinds);

// COWSHED_SEED chooses other moments; how the processes take turns is chance all the same.
TYPED_TEST(ChannelRandomKill, LeavesTheOthersWorking) {
  this->refill();
  for (int i = 0; i < kMoments && !this->HasFailure(); ++i) {
    this->strike();
    this->refill();
    this->expect_others_go_on();
  }
  this->end();
}

}  // namespace
}  // namespace cowshed::test
