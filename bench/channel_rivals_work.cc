#include "channel_rivals_work.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <sys/types.h>
#include <thread>
#include <time.h>
#include <utility>
#include <vector>

#include "channel_rivals_messages.h"
#include "channel_rivals_party.h"
#include "channel_rivals_ways.h"
#include "peer.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kPatience{180};  // 5 GiB take a tenth of it

// Of all its threads, user and system.
std::uint64_t cpu_ns(pid_t process) {
  clockid_t clock = 0;
  timespec time{};
  if (clock_getcpuclockid(process, &clock) != 0 || clock_gettime(clock, &time) != 0) {
    throw std::runtime_error("clock_getcpuclockid");
  }
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(time.tv_nsec);
}

double percentile(const std::vector<std::uint64_t>& sorted, double share) {
  const auto rank = static_cast<std::size_t>(share * static_cast<double>(sorted.size()));
  return static_cast<double>(sorted[std::min(rank, sorted.size() - 1)]);
}

class Rivals final : public SubjectWork {
 public:
  Rivals(const Shape& shape, std::uint64_t count, std::unique_ptr<Way> way)
      : shape_(shape),
        count_(count),
        way_(std::move(way)),
        shared_(new(shared_memory(sizeof(Shared))) Shared{}),
        trips_(static_cast<std::uint64_t*>(shared_memory(count * sizeof(std::uint64_t)))) {
    const Traffic traffic{shape, count, *way_, *shared_, trips_};
    for (std::size_t i = 0; i < shape.receivers; ++i) {
      receivers_.push_back(start(std::make_shared<Receiver>(traffic, i), shape.senders + i,
                                 shared_->receivers.at(i)));
    }
    for (std::size_t i = 0; i < shape.senders; ++i) {
      senders_.push_back(start(std::make_shared<Sender>(traffic, i), i, shared_->senders.at(i)));
    }
  }

  json facts() const override { return {{"settings", way_->settings()}}; }

  json answer(const json& question) override {
    if (!prepared_) prepare();
    const Order what = question["whole"] ? Order::whole : Order::timed;
    shared_->ending = false;
    const std::uint64_t cpu_before = cpu();
    order(receivers_, what);
    order(senders_, what);
    finish(senders_);
    const std::uint64_t total = shape_.senders * count_;
    if (shape_.receivers > 1) {  // of which none knows how many it gets
      wait([&] { return received() >= total; });
      shared_->ending = true;
      if (!way_->gives_up()) {
        order({senders_.data(), 1}, Order::end);
        finish({senders_.data(), 1});
      }
    }
    finish(receivers_);
    verify(total);
    sent_ += count_;
    return figures(total, cpu() - cpu_before);
  }

 private:
  struct Process {
    std::unique_ptr<Peer> peer;
    Account* account;
  };
  using Processes = std::span<const Process>;

  static Process start(const std::shared_ptr<Party>& party, std::size_t cpu, Account& account) {
    const auto serve = [party](std::uint64_t order) -> std::uint64_t {
      party->serve(static_cast<Order>(order));
      return 0;
    };
    return {std::make_unique<Peer>(serve, cpu), &account};
  }

  // Receivers first, so that senders find them.
  void prepare() {
    order(receivers_, Order::prepare);
    finish(receivers_);
    order(senders_, Order::prepare);
    finish(senders_);
    prepared_ = true;
  }
  void order(Processes processes, Order what) const {
    for (const auto& [peer, account] : processes) {
      account->done = false;
      if (what != Order::end) account->count = 0;
      peer->start(static_cast<std::uint64_t>(what));
    }
  }
  void finish(Processes processes) const {
    wait([&] {
      return std::all_of(processes.begin(), processes.end(),
                         [](const Process& process) { return process.account->done.load(); });
    });
    for (const auto& [peer, account] : processes) peer->result();
  }
  // Looks now and then: who waits for what was lost, or for who has failed, would wait for ever.
  template <class Condition>
  void wait(const Condition& fulfilled) const {
    std::uint64_t last = received();
    auto since = std::chrono::steady_clock::now();
    while (!fulfilled()) {
      if (shared_->failed) throw std::runtime_error(shared_->why.data());
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      const auto now = std::chrono::steady_clock::now();
      if (const std::uint64_t count = received(); count != last) {
        last = count;
        since = now;
      }
      if (now - since > kPatience) {
        throw std::runtime_error(fmt::format("nothing has come after message {}", last));
      }
    }
  }

  std::uint64_t cpu() const {
    std::uint64_t sum = 0;
    for (const auto& [peer, account] : receivers_) sum += cpu_ns(peer->pid());
    for (const auto& [peer, account] : senders_) sum += cpu_ns(peer->pid());
    return sum;
  }
  std::uint64_t received() const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < shape_.receivers; ++i) sum += shared_->receivers[i].count;
    return sum;
  }

  void verify(std::uint64_t total) const {
    std::uint64_t checksum = 0;
    for (std::size_t i = 0; i < shape_.receivers; ++i) checksum += shared_->receivers[i].checksum;
    if (received() != total || checksum != checksum_of(shape_.senders, sent_ + 1, count_)) {
      throw std::runtime_error(
          fmt::format("{} messages arrived of {}, or others", received(), total));
    }
  }

  json figures(std::uint64_t total, std::uint64_t cpu) const {
    std::uint64_t begin = shared_->senders[0].begin;
    std::uint64_t end = 0;
    for (std::size_t i = 0; i < shape_.senders; ++i) {
      begin = std::min(begin, shared_->senders[i].begin);
      if (shape_.back) end = std::max(end, shared_->senders[i].end);
    }
    for (std::size_t i = 0; i < shape_.receivers; ++i) {
      end = std::max(end, shared_->receivers[i].end);
    }
    const auto messages = static_cast<double>(total);
    json result = {{"ns", static_cast<double>(end - begin) / messages},
                   {"cpu", static_cast<double>(cpu) / messages}};
    if (shape_.back) {
      std::vector<std::uint64_t> sorted(trips_, trips_ + count_);
      std::sort(sorted.begin(), sorted.end());
      result["p50"] = percentile(sorted, 0.5);
      result["p99"] = percentile(sorted, 0.99);
      result["p99.9"] = percentile(sorted, 0.999);
    }
    return result;
  }

  const Shape shape_;
  const std::uint64_t count_;
  bool prepared_ = false;
  std::uint64_t sent_ = 0;  // by each sender, before
  std::unique_ptr<Way> way_;
  Shared* shared_;
  std::uint64_t* trips_;  // ns each
  std::vector<Process> receivers_;
  std::vector<Process> senders_;
};

class Impossible final : public SubjectWork {
 public:
  explicit Impossible(std::string why) : why_(std::move(why)) {}
  json facts() const override { return {{"not possible", why_}}; }
  json answer(const json&) override { throw std::logic_error(why_); }

 private:
  std::string why_;
};

}  // namespace

std::unique_ptr<SubjectWork> make_rivals_work(const json& configuration) {
  static const std::map<std::string, std::unique_ptr<Way> (*)(const Shape&)> ways = {
      {"boost", make_boost_way},
      {"channel", make_channel_way},
      {"mq", make_mq_way},
      {"pipe", make_pipe_way},
      {"polled pipe", make_polled_pipe_way},
      {"socketpair", make_socket_way},
      {"zmq", make_zmq_way}};
  const Shape shape{configuration["size"], configuration["senders"], configuration["receivers"],
                    configuration["back"]};
  try {
    return std::make_unique<Rivals>(shape, configuration["count"],
                                    ways.at(configuration["way"])(shape));
  } catch (const NotPossible& failure) {
    return std::make_unique<Impossible>(failure.what());
  }
}

}  // namespace cowshed::bench
