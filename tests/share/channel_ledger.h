#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/share/channel_layout.h>
#include <cowshed/share/channel_stats.h>
#include <cowshed/share/codec.h>
#include <cowshed/share/descriptor.h>

// What the processes around a channel note down of its messages, in memory that outlives them all.
namespace cowshed::test {

// A process that sends, or that receives, from its start to its end.
struct Life {
  std::atomic<pid_t> pid;   // 0: it has not begun
  std::atomic<bool> ended;  // by itself, all being well
  // A producer's messages have the numbers 1, 2, ...: up to which it may have sent, and up to which
  // a send has returned.
  std::atomic<std::uint64_t> attempted;
  std::atomic<std::uint64_t> returned;
  std::atomic<std::uint64_t> taken;  // messages, by a consumer
};

inline constexpr std::uint32_t kLives = 1024;
inline constexpr std::uint64_t kMessages = std::uint64_t{1} << 26U;  // in one channel

// A message's identity: its producer's life and its number.
constexpr std::uint64_t message_id(std::uint32_t life, std::uint64_t number) {
  return std::uint64_t{life} << 40U | number;
}
constexpr std::uint32_t producer_of(std::uint64_t id) {
  return static_cast<std::uint32_t>(id >> 40U) % kLives;
}
constexpr std::uint64_t number_of(std::uint64_t id) { return id & ((std::uint64_t{1} << 40U) - 1); }

struct LedgerMemory {
  std::atomic<std::uint32_t> stops_begun;  // by SIGSTOP
  std::atomic<std::uint32_t> stops_over;
  std::atomic<std::uint32_t> failures;
  std::array<char, 400> first_failure;
  std::array<Life, kLives> lives;
  // By the number that the channel gave the message: who received which.
  std::array<std::atomic<std::uint64_t>, kMessages> received;
};

// A handle; workers get it as an argument.
class Ledger {
 public:
  Ledger();                          // a new one
  explicit Ledger(Descriptor file);  // of another process

  int file() const { return file_->get(); }
  Life& life(std::uint32_t index) const { return memory_->lives[index]; }
  // In the process that is to live it, which does not outlast a test that is killed.
  Life& begin(std::uint32_t life) const;

  void note_received(std::uint64_t number, std::uint64_t id, std::uint32_t by) const;
  std::uint64_t id_at(std::uint64_t number) const;  // 0: nobody noted it
  std::uint32_t receiver_at(std::uint64_t number) const;

  // Around the time in which a process is stopped.
  void stop_begins() const { ++memory_->stops_begun; }
  void stop_is_over() const { ++memory_->stops_over; }
  std::uint32_t stops_begun() const { return memory_->stops_begun; }
  std::uint32_t stops_over() const { return memory_->stops_over; }

  // The first is kept.
  void fail(const std::string& what) const;
  std::string failure() const;  // "": none

 private:
  void map();

  std::shared_ptr<Descriptor> file_;
  std::shared_ptr<LedgerMemory> memory_;
};

// What the test did to each life.
struct Fate {
  bool produces = false;
  bool killed = false;   // or may have been
  bool refused = false;  // start() failed
};

// Says where the ledger and the channel's own figures, as of when all are gone and all is received,
// are not as promised; "" when they are.  A receiver may have had `most_in_hand` at once.
std::string find_broken_promise(const Ledger& ledger, const std::vector<Fate>& fates,
                                const ChannelStats& stats, std::uint64_t most_in_hand);

}  // namespace cowshed::test

template <>
struct cowshed::Codec<cowshed::test::Ledger> {
  static void encode(Encoder& to, const test::Ledger& ledger) { to.put_descriptor(ledger.file()); }
  static test::Ledger decode(Decoder& from) {
    return test::Ledger(Descriptor(from.take_descriptor()));
  }
};
