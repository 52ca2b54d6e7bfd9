#include "channel_ledger.h"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

namespace cowshed::test {

Ledger::Ledger() : file_(std::make_shared<Descriptor>(memfd_create("ledger", MFD_CLOEXEC))) {
  if (ftruncate(file(), sizeof(LedgerMemory)) != 0) {
    throw std::runtime_error("no ledger");
  }
  map();
}

Ledger::Ledger(Descriptor file) : file_(std::make_shared<Descriptor>(std::move(file))) { map(); }

void Ledger::map() {
  void* memory = mmap(nullptr, sizeof(LedgerMemory), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE, file(), 0);
  if (memory == MAP_FAILED) {
    throw std::runtime_error("the ledger cannot be mapped");
  }
  memory_ = {static_cast<LedgerMemory*>(memory),
             [](LedgerMemory* mapped) { munmap(mapped, sizeof(LedgerMemory)); }};
}

Life& Ledger::begin(std::uint32_t life) const {
  constexpr unsigned kLongest = 200;  // seconds
  alarm(kLongest);
  memory_->lives[life].pid = getpid();
  return memory_->lives[life];
}

void Ledger::note_received(std::uint64_t number, std::uint64_t id, std::uint32_t by) const {
  if (number >= kMessages) {
    fail("message " + std::to_string(number) + ": more than the ledger has place for");
    return;
  }
  const std::uint64_t before = memory_->received[number].exchange(std::uint64_t{by} << 52U | id);
  if (before != 0) {
    fail("message " + std::to_string(number) + " was received twice");
  }
}

std::uint64_t Ledger::id_at(std::uint64_t number) const {
  return memory_->received[number] & ((std::uint64_t{1} << 52U) - 1);
}

std::uint32_t Ledger::receiver_at(std::uint64_t number) const {
  return static_cast<std::uint32_t>(memory_->received[number] >> 52U);
}

void Ledger::fail(const std::string& what) const {
  if (memory_->failures.fetch_add(1) == 0) {
    what.copy(memory_->first_failure.data(), memory_->first_failure.size() - 1);
  }
}

std::string Ledger::failure() const {
  return memory_->failures == 0 ? "" : memory_->first_failure.data();
}

namespace {

class Examination {
 public:
  Examination(const Ledger& ledger, const std::vector<Fate>& fates, const ChannelStats& stats)
      : ledger_(ledger), fates_(fates), stats_(stats) {}

  std::string find(std::uint64_t most_in_hand) {
    look_at_lives();
    look_at_hands(most_in_hand);
    if (stats_.sent != stats_.received || stats_.sent > kMessages) {
      add(std::to_string(stats_.sent) + " were sent, " + std::to_string(stats_.received) +
          " received");
    } else {
      look_at_messages();
      look_at_what_is_missing();
    }
    if (stats_.outstanding != 0 || stats_.processes != 1 || stats_.lost_before != 0) {
      add(std::to_string(stats_.outstanding) + " bytes are outstanding, " +
          std::to_string(stats_.processes) + " processes attached, " +
          std::to_string(stats_.lost_before) + " messages forgotten");
    }
    return found_;
  }

 private:
  struct Sent {
    std::uint64_t last = 0;   // of those received
    std::uint64_t count = 0;  // of them
  };

  void add(const std::string& what) {
    if (found_.size() < 1000) {
      found_ += what + "\n";
    }
  }
  static std::string name(std::uint32_t life) { return "party " + std::to_string(life); }

  // Survivors go on to the end, or get an error that is documented: then fail() was not called.
  void look_at_lives() {
    for (std::uint32_t i = 1; i < fates_.size(); ++i) {
      const Life& life = ledger_.life(i);
      if (fates_[i].refused && life.pid != 0) {
        add(name(i) + " runs, although start() had failed");
      } else if (!fates_[i].killed && !fates_[i].refused && !life.ended) {
        add(name(i) + " did not come to its end, and nobody killed it");
      }
    }
  }

  // "at most one message per killed receiver, counted and named"
  void look_at_hands(std::uint64_t most_in_hand) {
    for (const LostMessages& lost : stats_.lost) {
      std::uint32_t by = 0;
      for (std::uint32_t i = 1; i < fates_.size(); ++i) {
        const bool is_it =
            !fates_[i].produces && fates_[i].killed && ledger_.life(i).pid == lost.receiver;
        by = is_it ? i : by;
      }
      if (by == 0 || lost.count == 0 || lost.count > most_in_hand || has_lost_[by]) {
        add(std::to_string(lost.count) + " messages lost by pid " + std::to_string(lost.receiver) +
            ", " + name(by));
      }
      has_lost_[by] = true;
      for (std::uint64_t i = 0; i < lost.count; ++i) {
        if (!lost_by_.emplace(lost.first + i, by).second) {
          add("message " + std::to_string(lost.first + i) + " is lost twice");
        }
      }
    }
  }

  // "what was sent is received at most once [note_received()], and exactly once unless its receiver
  // was killed with it in hand"; in the order of each producer.
  void look_at_messages() {
    std::map<std::uint32_t, std::uint64_t> last_of_receiver;
    for (std::uint64_t number = 0; number < stats_.sent; ++number) {
      const std::uint64_t id = ledger_.id_at(number);
      const auto lost = lost_by_.find(number);
      if (id == 0) {
        ++missing_;
        if (lost == lost_by_.end()) {
          add("message " + std::to_string(number) + " was not received, nor counted as lost");
        }
        continue;
      }
      const std::uint32_t by = ledger_.receiver_at(number);
      last_of_receiver[by] = number;
      if (lost != lost_by_.end() && lost->second != by) {
        add("message " + std::to_string(number) + " is lost by " + name(lost->second) +
            ", and was received by " + name(by));
      }
      Sent& sent = sent_[producer_of(id)];
      if (number_of(id) <= sent.last) {
        add("message " + std::to_string(number) + " overtook another of " + name(producer_of(id)));
      }
      sent.last = number_of(id);
      ++sent.count;
    }
    for (const auto& [number, by] : lost_by_) {
      if (number >= stats_.sent) {
        add("message " + std::to_string(number) + " is lost and was never received");
      } else if (ledger_.id_at(number) != 0 && last_of_receiver[by] > number &&
                 !lost_by_.contains(last_of_receiver[by])) {
        add("message " + std::to_string(number) + " is lost, and " + name(by) +
            " took others since");
      }
    }
  }

  // What no receiver noted must be just what the senders sent besides.
  void look_at_what_is_missing() {
    std::uint64_t sure = 0;
    std::uint64_t possible = 0;
    for (std::uint32_t i = 1; i < fates_.size(); ++i) {
      const Life& life = ledger_.life(i);
      if (sent_[i].last > life.attempted) {
        add(name(i) + " sent what it did not send");
        continue;
      }
      const std::uint64_t sent = std::max<std::uint64_t>(life.returned, sent_[i].last);
      sure += sent - sent_[i].count;
      possible += life.attempted - sent;
    }
    if (missing_ < sure || missing_ > sure + possible) {
      add(std::to_string(missing_) + " messages have no receiver, but " + std::to_string(sure) +
          " to " + std::to_string(sure + possible) + " of those that were sent");
    }
  }

  const Ledger& ledger_;
  const std::vector<Fate>& fates_;
  const ChannelStats& stats_;
  std::array<Sent, kLives> sent_ = {};
  std::array<bool, kLives> has_lost_ = {};
  std::map<std::uint64_t, std::uint32_t> lost_by_;
  std::uint64_t missing_ = 0;
  std::string found_;
};

}  // namespace

std::string find_broken_promise(const Ledger& ledger, const std::vector<Fate>& fates,
                                const ChannelStats& stats, std::uint64_t most_in_hand) {
  return Examination(ledger, fates, stats).find(most_in_hand);
}

}  // namespace cowshed::test
