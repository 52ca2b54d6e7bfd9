#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <cowshed/base/size_literals.h>

#include "channel_rivals_ways.h"
#include "channel_rivals_work.h"
#include "machine.h"
#include "program.h"

// The same messages through channels, and through what else there is.
namespace cowshed::bench {
namespace {

using nlohmann::json;
using namespace size_literals;

// At 5 GiB there are three of a message: the sender's, the queue's and the receiver's.
constexpr std::size_t kAlone = 1_GiB;       // from here on one way's processes at a time
constexpr std::size_t kMemory = 15_GiB;     // that all of one way's processes may take
constexpr std::uint64_t kVolume = 128_MiB;  // of a sample, where messages are large

struct Rival {
  std::string name;
  std::string way;
  std::string program = {};    // beside this one
  std::uint64_t slowness = 1;  // so many fewer messages are sent
  bool many = true;            // senders and receivers
  std::uint64_t copies = 3;    // of a large message, that are alive at once
  bool one_way = true;         // not for round trips alone
};

// The last is the first again: processes like those, to tell noise from difference.
const std::vector<Rival>& rivals() {
  static const std::vector<Rival> all = {
      {"channel", "channel"},
      {"pipe", "pipe"},
      {"pipe, polled", "polled pipe", {}, 1, false, 3, false},
      {"socketpair", "socketpair"},
      {"POSIX mq", "mq"},
      {"Boost message_queue", "boost"},
      {"ZeroMQ", "zmq"},
      {"Python Queue", "queue", "channel_rivals_python", 10, true, 5},
      {"Python Pipe", "connection", "channel_rivals_python", 10, false},
      {"channel again", "channel"}};
  return all;
}

struct Run {
  std::string name;  // "round trip/64 B": what its group is called
  std::size_t size;
  std::uint64_t count;  // by each sender, or of round trips
  std::size_t senders = 1;
  std::size_t receivers = 1;
  bool back = false;
};

// Large messages take long: from kAlone on one, after another that is compared whole.
std::uint64_t least_count(std::size_t size) { return size < kAlone ? 2 : 1; }
int most_pairs(std::size_t size) {
  if (size > kAlone) return 1;
  return size == kAlone ? 2 : 1000;
}

std::string bytes_name(std::size_t bytes) {
  if (bytes >= 1_MiB) return size_name(bytes);
  return bytes >= 1_KiB ? fmt::format("{} KiB", bytes / 1_KiB) : fmt::format("{} B", bytes);
}

using SizesByReason = std::map<std::string, std::set<std::size_t>>;

// What is said once, however often it was found; by rival.
struct Notes {
  std::map<std::string, SizesByReason> not_possible;
  std::map<std::string, std::set<std::string>> settings;
};

// "64 KiB, 1 MiB (why)".
std::string to_text(const SizesByReason& not_possible) {
  std::vector<std::string> parts;
  for (const auto& [why, sizes] : not_possible) {
    std::vector<std::string> names;
    for (const std::size_t size : sizes) names.push_back(bytes_name(size));
    parts.push_back(fmt::format("{} ({})", fmt::join(names, ", "), why));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

class Contest {
 public:
  Contest(const Run& run, const Options& options, Report& report, Notes& notes)
      : run_(run), pairs_(std::min(options.pairs, most_pairs(run.size))), report_(report) {
    for (const Rival& rival : rivals()) {
      if (!rival.many && run.senders + run.receivers > 2) continue;
      if (!rival.one_way && !run.back) continue;
      if (rival.copies * run.size > kMemory) {
        const auto why = fmt::format("its processes take {}", bytes_name(rival.copies * run.size));
        notes.not_possible[rival.name][why].insert(run.size);
        continue;
      }
      admit(rival, notes);
    }
  }

  void measure() {
    std::vector<Variant> variants;
    for (Contestant& one : contestants_) {
      variants.push_back({one.rival->name, [&] { return sample(one); }});
    }
    interleave(variants, pairs_);
    if (run_.back) {
      tell("us", {{"p50", ", p50"}, {"p99", ", p99"}, {"p99.9", ", p99.9"}});
    } else {
      tell(run_.size < 4_KiB ? "million/s" : "GiB/s", {{"rate", ""}});
    }
    tell("us", {{"cpu", ", CPU time"}});
  }

 private:
  struct Contestant {
    const Rival* rival;
    std::unique_ptr<Subject> subject;
    std::map<std::string, std::vector<double>> samples;  // as they are told
  };

  // Every byte once, before times are taken.
  void compare_all(const Rival& rival, Subject& subject) const {
    try {
      subject.ask({{"whole", true}});
    } catch (const std::exception& failure) {
      throw std::runtime_error(fmt::format("{}, {}: {}", rival.name, run_.name, failure.what()));
    }
  }
  std::unique_ptr<Subject> start(const Rival& rival) const {
    return std::make_unique<Subject>(
        json{{"way", rival.way},
             {"size", run_.size},
             {"senders", run_.senders},
             {"receivers", run_.receivers},
             {"back", run_.back},
             {"count",
              std::max(run_.count / (run_.back ? 1 : rival.slowness), least_count(run_.size))}},
        rival.program);
  }

  void admit(const Rival& rival, Notes& notes) {
    auto subject = start(rival);
    const json& facts = subject->facts();
    if (facts.contains("not possible")) {
      notes.not_possible[rival.name][facts["not possible"].get<std::string>()].insert(run_.size);
      return;
    }
    const std::string settings = facts["settings"];
    if (!settings.empty()) notes.settings[rival.name].insert(settings);
    if (run_.size >= kAlone) {
      subject.reset();
    } else {
      compare_all(rival, *subject);
    }
    contestants_.push_back({&rival, std::move(subject), {}});
  }

  double sample(Contestant& one) const {
    const auto alone = one.subject ? nullptr : start(*one.rival);
    if (alone) compare_all(*one.rival, *alone);
    json answer = (alone ? *alone : *one.subject).ask({{"whole", false}});
    const double ns = answer["ns"];
    const double gib = static_cast<double>(run_.size) / static_cast<double>(1_GiB);
    answer["rate"] = run_.size < 4_KiB ? 1e3 / ns : gib / ns * 1e9;
    for (const auto& [what, value] : answer.items()) {
      const double told = value;
      one.samples[what].push_back(what == "rate" || what == "ns" ? told : told / 1e3);
    }
    return ns;
  }

  // For each of `whats` a figure of every contestant, named with what stands beside it; ratios, and
  // the same against itself.
  void tell(const std::string& unit,
            const std::vector<std::pair<std::string, std::string>>& whats) const {
    const auto& ours = contestants_.front().samples;
    for (const Contestant& one : contestants_) {
      const bool again = &one == &contestants_.back();
      for (const auto& [what, suffix] : whats) {
        const auto& values = one.samples.at(what);
        if (!again) report_.figure(run_.name, one.rival->name + suffix, median(values), unit);
        if (again && what == whats.front().first && what != "cpu") {
          report_.control(run_.name, compare(values, ours.at(what)));
        } else if (!again && &one != &contestants_.front()) {
          report_.ratio(run_.name, fmt::format("{}{} to channel", one.rival->name, suffix),
                        compare(values, ours.at(what)));
        }
      }
    }
  }

  const Run& run_;
  int pairs_;
  Report& report_;
  std::vector<Contestant> contestants_;
};

std::vector<Run> all_runs(bool quick) {
  std::vector<Run> result;
  const std::vector<std::size_t> sizes =
      quick ? std::vector<std::size_t>{8, 64, 4_KiB, 1_MiB}
            : std::vector<std::size_t>{8, 64, 4_KiB, 64_KiB, 1_MiB, 64_MiB, 1_GiB, 5_GiB};
  for (const std::size_t size : sizes) {
    const std::uint64_t count =
        quick ? (size < 1_MiB ? 500 : 4)
              : std::clamp<std::uint64_t>(kVolume / size, least_count(size), 200'000);
    result.push_back({"rate/" + bytes_name(size), size, count});
  }
  const std::uint64_t all = quick ? 800 : 160'000;
  for (const std::size_t senders : std::vector<std::size_t>{2, 4, 8}) {
    result.push_back(
        {fmt::format("rate/64 B, {} senders", senders), 64, all / senders, senders, 1});
  }
  result.push_back({"rate/64 B, 4 receivers", 64, all, 1, 4});
  result.push_back({"rate/64 B, 4 to 4", 64, all / 4, 4, 4});
  for (const std::size_t size : quick ? std::vector<std::size_t>{8, 64, 4_KiB}
                                      : std::vector<std::size_t>{8, 64, 4_KiB, 64_KiB, 1_MiB}) {
    const std::uint64_t trips = quick ? 50 : std::clamp<std::uint64_t>(1_GiB / size, 1000, 4000);
    result.push_back({"round trip/" + bytes_name(size), size, trips, 1, 1, true});
  }
  return result;
}

void describe(Report& report) {
  report.setting("a message",
                 "its sender and number, and words that follow from them; every byte is compared "
                 "before times are taken, then the number, the order of each sender's, the sum of "
                 "all, and a byte of each cache line is read");
  report.setting("rate",
                 "from the first send until the last has been received, 1 sender and 1 "
                 "receiver unless said; in GiB/s of 4 KiB and more");
  report.setting("CPU", "user and system time of all processes, with the threads of libraries");
  report.setting("round trip",
                 "there and back, of one sender and one receiver; of the samples' "
                 "percentiles, each of 1,024 to 4,000 trips, the median");
  report.setting("channel",
                 "Channel<Bytes>, general, send() of a span, which copies, and receive(), which "
                 "looks for some 5 us before it sleeps");
  report.setting("queues",
                 "of 1,024 messages, or of 256 MiB, but of one at least: channel, POSIX "
                 "mq, Boost message_queue, and ZeroMQ's high-water marks");
  report.setting("pipe",
                 "of 1 MiB (F_SETPIPE_SZ); a single receiver reads 64 KiB ahead; polled: its "
                 "readers never sleep (O_NONBLOCK)");
  report.setting("socketpair",
                 "AF_UNIX, SOCK_STREAM, read as a pipe; with several senders or "
                 "receivers SOCK_SEQPACKET, whose queue net.unix.max_dgram_qlen bounds");
  report.setting("POSIX mq",
                 "mq_open, mq_send of priority 0, mq_receive; fs.mqueue.msg_max and msgsize_max "
                 "raised to 1,024 and 16 MiB, where root may");
  report.setting("Boost message_queue", "1.74, priority 0");
  report.setting("ZeroMQ",
                 "libzmq, ipc:// in the abstract namespace, 1 I/O thread, which may run on "
                 "any CPU; PUSH and PULL, each receiver with a socket that all senders "
                 "connect to; PAIR for round trips; from 1 MiB on zmq_msg_init_data");
  report.setting("Python",
                 "/usr/bin/python3, multiprocessing by fork, a tenth of the messages; "
                 "Queue: put() of an int and bytes; Pipe: send_bytes() of a bytearray and "
                 "recv_bytes(), not for several senders or receivers; not pinned");
  report.setting("others", "each process pinned to a CPU, receivers to the next after the senders");
}

void measure(const Options& options, Report& report) {
  describe(report);
  Notes notes;
  const auto mq_limits = raise_mq_limits();
  for (const Run& run : all_runs(options.quick)) {
    if (!options.wants(run.name)) continue;
    if (!options.quick) touch_memory(run.size < kAlone ? 2_GiB : 3 * run.size);
    Contest(run, options, report, notes).measure();
  }
  for (const auto& [rival, whys] : notes.not_possible) {
    report.setting(rival + ", not possible", to_text(whys));
  }
  for (const auto& [rival, settings] : notes.settings) {
    report.setting(rival + ", as granted", fmt::format("{}", fmt::join(settings, ", ")));
  }
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "channel_rivals",
       .question = "how fast messages of 8 B to 5 GiB go between processes, by the ways there are",
       .pairs = 15,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_rivals_work});
}
