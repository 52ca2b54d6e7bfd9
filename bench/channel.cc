#include <algorithm>
#include <fmt/format.h>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <cowshed/base/size_literals.h>

#include "channel_work.h"
#include "machine.h"
#include "program.h"

// Messages through channels, and through what else there is.
namespace cowshed::bench {
namespace {

using nlohmann::json;
using namespace size_literals;

struct Contestant {
  std::string name;
  json configuration;
};

// By name, each told in its own unit.
struct Told {
  std::string suffix;  // of the figure's name
  std::string unit;
  std::function<double(const json&)> figure;  // of an answer
};

double ns_of(const json& answer) { return answer["ns"]; }

// Answers of each subject in turns, all of them alive at once: they sleep but when asked.  The last
// contestant is the first again.  Returns the samples of what is told first.
std::vector<Samples> measure_all(const std::string& group, const std::vector<Contestant>& all,
                                 const std::vector<Told>& told, const json& question, int pairs,
                                 Report& report) {
  std::vector<std::unique_ptr<Subject>> subjects;
  std::vector<Variant> variants;
  std::vector<std::vector<json>> answers(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    subjects.push_back(std::make_unique<Subject>(all[i].configuration));
    if (all[i].configuration["work"] == "traffic") subjects[i]->ask({{"whole", true}});
    variants.push_back({all[i].name, [&, i] {
                          answers[i].push_back(subjects[i]->ask(question));
                          return told.front().figure(answers[i].back());
                        }});
  }
  auto samples = interleave(variants, pairs);
  for (const auto& [suffix, unit, figure] : told) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      std::vector<double> values;
      for (const json& answer : answers[i]) values.push_back(figure(answer));
      report.figure(group, all[i].name + suffix, median(values), unit);
    }
  }
  report.control(group, compare(samples.back().values, samples.front().values));
  return samples;
}

struct Run {
  std::string name;  // "round trip/64 B": what its group is called
  std::size_t size;
  std::uint64_t count;      // by each sender, or of round trips
  std::size_t parties = 1;  // on each side
  bool back = false;
};

void measure_traffic(const Run& run, const Options& options, Report& report) {
  if (!options.wants(run.name)) return;
  std::vector<Contestant> all;
  for (const std::string way :
       {"channel", "channel of values", "pipe", "socketpair", "Boost message_queue", "channel"}) {
    if (way == "channel of values" && run.size != 64) continue;
    all.push_back({way,
                   {{"work", "traffic"},
                    {"way", way},
                    {"size", run.size},
                    {"senders", run.parties},
                    {"receivers", run.parties},
                    {"back", run.back},
                    {"count", run.count}}});
  }
  all.back().name += " again";
  const auto percentile = [](const char* name) {
    return Told{std::string(", ") + name, "us",
                [name](const json& answer) { return answer[name].get<double>() / 1e3; }};
  };
  const bool small = run.size < 4_KiB;
  const double gib = static_cast<double>(run.size) / static_cast<double>(1_GiB);
  const Told rate = {"", small ? "million/s" : "GiB/s", [small, gib](const json& answer) {
                       return (small ? 1e3 : gib * 1e9) / ns_of(answer);
                     }};
  const auto samples = measure_all(
      run.name, all,
      run.back ? std::vector<Told>{percentile("p50"), percentile("p99")} : std::vector<Told>{rate},
      {{"whole", false}}, options.pairs, report);
  const auto speed = [&](const std::string& ours, const std::string& rival) {
    const auto& first = samples_of(samples, run.back ? rival : ours);
    return compare(first, samples_of(samples, run.back ? ours : rival));
  };
  for (const std::string rival : {"pipe", "socketpair", "Boost message_queue"})
    report.ratio(run.name, "speed of channel to " + rival, speed("channel", rival));
  if (run.name != "rate/64 B") return;
  const auto to_boost = speed("channel of values", "Boost message_queue");
  report.goal({run.name + ": speed of channel of values to Boost message_queue",
               Goal::Bound::at_least, 3, "", run.name},
              to_boost.ratio, to_boost.interval);
}

void measure_asleep(const Options& options, Report& report) {
  const std::string group = "asleep";
  if (!options.wants(group)) return;
  std::vector<Contestant> all;
  for (const std::string variant : {"futex", "channel", "futex"}) {
    all.push_back(
        {variant, {{"work", "asleep"}, {"variant", variant}, {"count", options.quick ? 10 : 500}}});
  }
  all.back().name += " again";
  const auto samples = measure_all(group, all, {{"", "ns", ns_of}}, {}, options.pairs, report);
  const auto cost = compare(samples[1].values, samples[0].values);
  report.goal({"asleep: time of channel to futex", Goal::Bound::at_most, 1.1, "", group},
              cost.ratio, cost.interval);
}

void measure_moved(const Options& options, Report& report) {
  const std::string group = "moved";
  if (!options.wants(group)) return;
  std::vector<Contestant> all;
  for (const bool small : {true, false, true}) {
    all.push_back({small ? "64 bytes" : "256 MiB",
                   {{"work", "moved"},
                    {"size", options.quick ? 4_MiB : 256_MiB},
                    {"small", small},
                    {"count", options.quick ? 2 : 20}}});
  }
  all.back().name += " again";
  const auto samples = measure_all(group, all, {{"", "ns", ns_of}}, {}, options.pairs, report);
  const auto cost = compare(samples[1].values, samples[0].values);
  report.goal({"moved: time of 256 MiB to 64 bytes", Goal::Bound::at_most, 1.05, "", group},
              cost.ratio, cost.interval);
}

void measure_death(const Options& options, Report& report) {
  const std::string group = "death";
  if (!options.wants(group)) return;
  Subject subject(json{{"work", "death"}});
  std::vector<double> delays(options.quick ? 3 : 200);
  for (double& delay : delays) delay = ns_of(subject.ask({})) / 1e6;
  std::sort(delays.begin(), delays.end());
  const double p99 = delays[delays.size() * 99 / 100];
  report.figure(group, "median", median(delays), "ms");
  report.goal({group + ": noticed, p99", Goal::Bound::at_most, 10, "ms"}, p99);
}

void measure(const Options& options, Report& report) {
  report.setting("a message",
                 "its sender and number, and words that follow from them; every byte is compared "
                 "before times are taken, then the number, the order of each sender's and the sum "
                 "of all");
  report.setting("rate",
                 "from the first send until the last has been received, 1 sender and 1 receiver "
                 "unless said");
  report.setting("round trip", "there and back: of the samples' percentiles the median");
  report.setting("channel", "Channel<Bytes>, send() of a span, which copies, and receive()");
  report.setting("channel of values", "Channel<std::array<std::byte, 64>>, send() and receive()");
  report.setting("queues", "of 1,024 messages, or of 256 MiB: channel and Boost message_queue");
  report.setting("pipe", "of 1 MiB (F_SETPIPE_SZ); a single receiver reads 64 KiB ahead");
  report.setting("socketpair",
                 "AF_UNIX, SOCK_STREAM, read as a pipe; with several senders SOCK_SEQPACKET");
  report.setting("asleep", "from the send to a receiver that slept for 200 us");
  report.setting("futex", "a store and FUTEX_WAKE, to FUTEX_WAIT");
  report.setting("moved",
                 "from before send() to a spinning peer's return from try_receive(): of a buffer "
                 "of 256 MiB in which every page was just written to, or of 64 bytes just after "
                 "the same was done to such a buffer, which is kept");
  report.setting("death", "from SIGKILL of a lock's holder to the return of a send that waits");
  if (!options.quick) touch_memory(2_GiB);
  const std::uint64_t part = options.quick ? 100 : 1;
  for (const Run& run :
       {Run{"rate/64 B", 64, 200'000 / part}, Run{"rate/1 MiB", 1_MiB, options.quick ? 4U : 128U},
        Run{"rate/64 B, 4 to 4", 64, 40'000 / part, 4},
        Run{"round trip/64 B", 64, 4'000 / part, 1, true},
        Run{"round trip/1 MiB", 1_MiB, 1'000 / part, 1, true}}) {
    measure_traffic(run, options, report);
  }
  measure_asleep(options, report);
  measure_moved(options, report);
  measure_death(options, report);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "channel",
       .question = "how fast messages go between processes, against pipes, sockets and Boost",
       .pairs = 6,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_channel_work});
}
