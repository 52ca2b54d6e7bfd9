#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <fstream>
#include <gtest/gtest.h>
#include <map>
#include <numeric>
#include <optional>
#include <poll.h>
#include <random>
#include <string>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <cowshed/share/workers.h>

#include "channel_ledger.h"
#include "channel_owner.h"
#include "channel_parties.h"
#include "every_method.h"

// Four senders and four receivers, the forkserver and the owner that started them, and what befalls
// them.  The test's process is above them all, and a subreaper.
namespace cowshed::test {

// A process that can be hit: one that is not reaped before this has gone.
class Target {
 public:
  Target() = default;
  explicit Target(pid_t pid)
      : pid_(pid), pidfd_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))) {}

  explicit operator bool() const { return static_cast<bool>(pidfd_); }
  pid_t pid() const { return pid_; }
  void signal(int number) const {
    syscall(SYS_pidfd_send_signal, pidfd_.get(), number, nullptr, 0);
  }
  bool ends_within(std::chrono::steady_clock::duration time) const {
    pollfd end = {pidfd_.get(), POLLIN, 0};
    const auto limit = std::chrono::ceil<std::chrono::milliseconds>(time).count();
    return !pidfd_ || poll(&end, 1, static_cast<int>(limit)) == 1;
  }

 private:
  pid_t pid_ = 0;
  Descriptor pidfd_;
};

// One of the eight.
struct Party {
  bool produces = false;
  std::uint32_t life = 0;
  Target process;
  Start method = Start::fork;
  bool dies_with_parent = false;
  std::uint64_t done = 0;  // messages, when it was last looked at
};

struct Hits {
  int most = 0;  // moments
  int moments = 0;
  std::map<std::string, int> killed = {};
  int stopped = 0;
  std::uint64_t sent = 0;
  std::uint64_t lost = 0;
};

inline std::string channel_name() { return "random-kills-" + std::to_string(getpid()); }

inline std::vector<pid_t> children_of_this_process() {
  std::vector<pid_t> children;
  std::ifstream file("/proc/self/task/" + std::to_string(gettid()) + "/children");
  for (pid_t pid = 0; file >> pid;) {
    children.push_back(pid);
  }
  return children;
}

// From the first process to the last, with some moments in between.
template <class Traffic>
class Tree {
  using Of = typename Traffic::Of;
  using Clock = std::chrono::steady_clock;
  using microseconds = std::chrono::microseconds;
  using milliseconds = std::chrono::milliseconds;

  static constexpr std::chrono::seconds kLimit{60};  // for what takes milliseconds
  static constexpr std::size_t kSide = 4;

 public:
  Tree(std::uint64_t seed, Hits& hits) : random_(seed), hits_(hits) {
    for (std::size_t i = 0; i < parties_.size(); ++i) {
      parties_[i].produces = i < kSide;
    }
  }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;
  ~Tree() { kill_all(); }  // what a failed test left

  void run(int moments) {
    refill();
    for (int i = 0; i < moments && !testing::Test::HasFailure(); ++i) {
      strike();
      refill();
      expect_others_go_on();
    }
    if (!testing::Test::HasFailure()) {
      end();
    }
  }

 private:
  bool chance(unsigned of) { return random_() % of == 0; }
  void pause(microseconds most) {
    std::uniform_real_distribution<double> logarithm(0, std::log(most.count()));
    std::this_thread::sleep_for(microseconds(std::lround(std::exp(logarithm(random_)))));
  }
  Start any_method() { return static_cast<Start>(random_() % 3); }
  std::uint64_t done_by(const Party& party) const {
    const Life& life = ledger_.life(party.life);
    return party.produces ? life.returned : life.taken;
  }

  void start_owner() {
    auto sockets = value_of(launch::make_socket_pair());
    socket_ = std::move(sockets.first);
    const Supervisor supervisor{std::make_shared<Descriptor>(std::move(sockets.second)),
                                channel_name()};
    const Start method = chance(2) ? Start::fork : Start::spawn;
    owner_workers_.emplace(value_of(
        start<own<Traffic>>({.method = method, .name = "owner"}, supervisor, ledger_, channel_)));
    owner_ = Target(owner_workers_->pids()[0]);
    if (auto channel = hear_owner<Of>(); channel && !channel_) {
      channel_ = std::move(channel);
    }
  }

  // Nothing when it is dead.
  template <class T>
  std::optional<T> hear_owner() {
    pollfd answer = {socket_.get(), POLLIN, 0};
    const auto limit = std::chrono::duration_cast<milliseconds>(kLimit).count();
    for (const auto begin = Clock::now(); Clock::now() < begin + kLimit;) {
      if (poll(&answer, 1, static_cast<int>(std::min<long>(limit, 20))) == 1) {
        return hear<T>(socket_);
      }
      if (owner_.ends_within({})) {
        return std::nullopt;
      }
    }
    ADD_FAILURE() << "the owner does not answer; " << ledger_.failure();
    return std::nullopt;
  }

  std::uint32_t new_life(const Party& party) {
    fates_.push_back({.produces = party.produces});
    return static_cast<std::uint32_t>(fates_.size() - 1);
  }

  // Until all places have somebody: who has come may be hit again meanwhile.
  void refill() {
    while (!testing::Test::HasFailure()) {
      if (!owner_) {
        start_owner();
      }
      const auto free = std::find_if(parties_.begin(), parties_.end(),
                                     [](const Party& party) { return !party.process; });
      if (free == parties_.end()) {
        return;
      }
      start_party(*free);
    }
  }

  void start_party(Party& party) {
    party.life = new_life(party);
    party.method = any_method();
    party.dies_with_parent = chance(2);
    tell(socket_, Command{true, party.produces, party.dies_with_parent, party.method, party.life});
    bool server_died = false;
    if (hits_.moments < hits_.most && chance(8)) {  // who starts another dies meanwhile
      ++hits_.moments;
      pause(milliseconds(2));
      server_died = server_ && chance(2);
      if (server_died) {
        kill_server();
      } else {
        fates_[party.life].killed = true;
        kill_owner();
        return;
      }
    }
    const auto reply = hear_owner<Reply>();
    if (!reply) {
      ADD_FAILURE() << "the owner ended: " << value_of(owner_workers_->wait())[0].error;
      return;
    }
    if (reply->server != server_.pid() && reply->server != dead_server_) {
      server_ = Target(reply->server);
    }
    if (reply->started) {
      party.process = Target(reply->pid);
      party.done = 0;
      if (server_died && party.method == Start::forkserver && party.dies_with_parent) {
        fates_[party.life].killed = true;
        forget(party);
      }
      return;
    }
    EXPECT_EQ(reply->error, ErrorCode::forkserver_ended);
    EXPECT_EQ(party.method, Start::forkserver);
    fates_[party.life].refused = true;
    server_ = Target();
  }

  // It is dead, or will be at once.
  void forget(Party& party) {
    EXPECT_TRUE(party.process.ends_within(kLimit)) << "party " << party.life << " is not dead";
    party.process = Target();
  }
  void kill_party(Party& party) {
    fates_[party.life].killed = true;
    party.process.signal(SIGKILL);
    ++hits_.killed[party.produces ? "senders" : "receivers"];
    forget(party);
  }
  void kill_server() {
    server_.signal(SIGKILL);
    ++hits_.killed["forkservers"];
    server_is_dead();
  }
  void server_is_dead() {
    EXPECT_TRUE(server_.ends_within(kLimit)) << "the forkserver is not dead";
    dead_server_ = server_.pid();
    server_ = Target();
    children_are_dead([](const Party& party) { return party.method == Start::forkserver; });
  }
  void kill_owner() {
    owner_.signal(SIGKILL);
    ++hits_.killed["owners"];
    owner_is_dead();
  }
  void owner_is_dead() {
    EXPECT_TRUE(owner_.ends_within(kLimit)) << "the owner is not dead";
    const WorkerExit end = value_of(owner_workers_->wait())[0];
    EXPECT_EQ(end.signal, SIGKILL) << end.error;
    owner_workers_.reset();
    owner_ = Target();
    children_are_dead([](const Party& party) { return party.method != Start::forkserver; });
    server_is_dead();
  }
  template <class Which>
  void children_are_dead(Which&& which) {
    for (auto& party : parties_) {
      if (party.process && party.dies_with_parent && which(party)) {
        fates_[party.life].killed = true;
        forget(party);
      }
    }
  }

  // 0 to 7: a party, 8: the forkserver, 9: the owner.
  const Target& target(std::size_t index) const {
    return index < parties_.size()    ? parties_[index].process
           : index == parties_.size() ? server_
                                      : owner_;
  }
  void kill(std::size_t index) {
    if (!target(index)) {
      return;  // it went with another
    }
    if (index < parties_.size()) {
      kill_party(parties_[index]);
    } else if (index == parties_.size()) {
      kill_server();
    } else {
      kill_owner();
    }
  }

  // A moment.
  void strike() {
    if (hits_.moments == hits_.most) {
      return;
    }
    ++hits_.moments;
    for (auto& party : parties_) {
      party.done = done_by(party);
    }
    std::vector<std::size_t> victims(parties_.size() + 2);
    std::iota(victims.begin(), victims.end(), 0);
    std::shuffle(victims.begin(), victims.end(), random_);
    victims.resize(chance(4) ? 2 + random_() % 4 : 1);
    const bool stop = chance(4);
    pause(milliseconds(5));
    if (stop) {
      ledger_.stop_begins();
      for (const std::size_t victim : victims) {
        target(victim).signal(SIGSTOP);
      }
      pause(milliseconds(20));
      hits_.stopped += static_cast<int>(victims.size());
      std::vector<std::size_t> killed;
      for (const std::size_t victim : victims) {
        const bool dies = chance(3);
        if (dies) {
          killed.push_back(victim);
        }
        target(victim).signal(dies ? SIGKILL : SIGCONT);
      }
      ledger_.stop_is_over();
      victims = killed;
    } else {
      for (const std::size_t victim : victims) {
        target(victim).signal(SIGKILL);
      }
    }
    for (const std::size_t victim : victims) {
      kill(victim);
    }
  }

  // "leaves the others working"; those that have just come, too.
  void expect_others_go_on() {
    const auto begin = Clock::now();
    for (const auto& party : parties_) {
      while (done_by(party) <= party.done && !testing::Test::HasFailure()) {
        EXPECT_EQ(ledger_.failure(), "");
        EXPECT_LT(Clock::now(), begin + kLimit)
            << "party " << party.life << (party.produces ? " sends" : " receives")
            << " no more; its pid is " << party.process.pid();
        std::this_thread::sleep_for(microseconds(100));
      }
    }
  }

  void end() {
    channel_->close();
    if (chance(2)) {
      pause(milliseconds(1));
      const std::size_t victim = random_() % parties_.size();
      kill(victim);
    }
    for (auto& party : parties_) {
      forget(party);
    }
    tell(socket_, Command{});
    const WorkerExit owners = value_of(owner_workers_->wait())[0];
    EXPECT_TRUE(owners.ok()) << owners.error;
    owner_workers_.reset();
    owner_ = Target();
    server_is_dead();
    reap_orphans();
    receive_the_rest();
    const ChannelStats stats = channel_->stats();
    EXPECT_EQ(find_broken_promise(ledger_, fates_, stats, Traffic::kMostInHand), "");
    EXPECT_EQ(ledger_.failure(), "");
    expect_no_memory_left();
    hits_.sent += stats.sent;
    hits_.lost += stats.lost.size();
  }

  // Who lost its parent has become a child of this process, which is a subreaper.
  void reap_orphans() {
    for (const auto begin = Clock::now(); !children_of_this_process().empty();) {
      int status = 0;
      const pid_t pid = waitpid(-1, &status, WNOHANG);
      if (pid > 0) {
        const bool fine =
            WIFEXITED(status) ? WEXITSTATUS(status) <= 1 : WTERMSIG(status) == SIGKILL;
        EXPECT_TRUE(fine) << "process " << pid << " ended with status " << status;
      } else {
        ASSERT_LT(Clock::now(), begin + kLimit) << "processes are left";
        std::this_thread::sleep_for(milliseconds(1));
      }
    }
  }

  // When the last receivers were killed.
  void receive_the_rest() {
    const std::uint32_t life = new_life({});
    consume<Traffic>(*channel_, ledger_, life);
    alarm(0);
  }

  // What the ring takes, and what small blocks keep: 4 MiB of each size.
  void expect_no_memory_left() {
    const ChannelMemory memory(*channel_);
    const channel_layout::Plan plan(memory.constants());
    struct stat status{};
    ASSERT_EQ(fstat(channel_->descriptors().segment, &status), 0);
    std::uint64_t kept = plan.reserved;
    for (std::uint64_t size = channel_layout::kPage; plan.classes != 0 && size <= 4U << 20U;
         size *= 2) {
      kept += 4U << 20U;
    }
    EXPECT_LE(static_cast<std::uint64_t>(status.st_blocks) * 512, kept);
  }

  void kill_all() {
    for (const auto& party : parties_) {
      party.process.signal(SIGKILL);
    }
    owner_workers_.reset();  // kills
    const auto begin = Clock::now();
    while (!children_of_this_process().empty() && Clock::now() < begin + kLimit) {
      for (const pid_t pid : children_of_this_process()) {
        ::kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
      }
    }
  }

  std::mt19937_64 random_;
  Hits& hits_;
  Ledger ledger_;
  std::vector<Fate> fates_{1};
  Descriptor socket_;
  std::optional<Workers<>> owner_workers_;
  Target owner_;
  Target server_;
  pid_t dead_server_ = 0;
  std::optional<Of> channel_;
  std::array<Party, 2 * kSide> parties_;
};

}  // namespace cowshed::test
