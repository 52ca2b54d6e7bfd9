#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <cowshed/base/size_literals.h>

#include "channel_work.h"
#include "machine.h"
#include "program.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;
using namespace size_literals;

struct Contestant {
  std::string name;
  json configuration;
};

// Samples of each subject in turns, all of them alive at once: they sleep but when asked.
std::vector<Samples> measure_all(const std::vector<Contestant>& all, int pairs) {
  std::vector<std::unique_ptr<Subject>> subjects;
  std::vector<Variant> variants;
  for (const Contestant& one : all) {
    subjects.push_back(std::make_unique<Subject>(one.configuration));
    Subject* subject = subjects.back().get();
    variants.push_back({one.name, [subject] { return subject->ask({})["ns"].get<double>(); }});
  }
  return interleave(variants, pairs);
}

void report_medians(const std::string& group, const std::vector<Samples>& samples, Report& report) {
  for (const auto& [name, values] : samples) {
    report.figure(group, name, median(values), "ns");
  }
}

// Of times: `ours` is at least `least` times as fast, or takes at most `most` times as long.
struct Judge {
  const std::string& group;
  const std::vector<Samples>& samples;
  Report& report;

  void faster(const std::string& ours, const std::string& rival, double least) const {
    const auto comparison = compare(samples_of(samples, rival), samples_of(samples, ours));
    report.goal(
        {group + ": speed of " + ours + " to " + rival, Goal::Bound::at_least, least, "", group},
        comparison.ratio, comparison.interval);
  }
  void slower(const std::string& ours, const std::string& rival, double most) const {
    const auto comparison = compare(samples_of(samples, ours), samples_of(samples, rival));
    report.goal(
        {group + ": time of " + ours + " to " + rival, Goal::Bound::at_most, most, "", group},
        comparison.ratio, comparison.interval);
  }
  void control(const std::string& again, const std::string& first) const {
    report.control(group, compare(samples_of(samples, again), samples_of(samples, first)));
  }
};

void measure_stream(const Options& options, Report& report) {
  const std::string group = "stream";
  if (!options.wants(group)) return;
  const auto subject = [&](const std::string& variant, std::uint64_t count) {
    return Contestant{variant,
                      {{"work", variant == "python" ? "python" : "stream"},
                       {"variant", variant},
                       {"count", options.quick ? 1000 : count}}};
  };
  std::vector<Contestant> all = {subject("general", 2'000'000),
                                 subject("single", 4'000'000),
                                 subject("general batched", 4'000'000),
                                 subject("single batched", 8'000'000),
                                 subject("ring", 4'000'000),
                                 subject("ring batched", 8'000'000),
                                 subject("pipe", 500'000),
                                 subject("boost", 200'000),
                                 subject("python", 100'000),
                                 subject("general", 2'000'000)};
  all.back().name = "general again";
  const auto samples = measure_all(all, options.pairs);
  report_medians(group, samples, report);
  const Judge judge{group, samples, report};
  judge.faster("general", "boost", 3);
  judge.faster("general", "pipe", 2);
  judge.faster("general", "python", 20);
  judge.faster("single", "python", 100);
  judge.faster("single batched", "ring batched", 0.5);
  judge.control("general again", "general");
}

// `bare`, each form of channel, and `bare` again, all doing `work`.
void measure_against(const std::string& group, const std::string& bare, const json& work,
                     double most, const Options& options, Report& report) {
  if (!options.wants(group)) return;
  std::vector<Contestant> all;
  for (const std::string& variant : {bare, std::string("general"), std::string("single"), bare}) {
    all.push_back({variant, work});
    all.back().configuration["variant"] = variant;
  }
  all.back().name = bare + " again";
  const auto samples = measure_all(all, options.pairs);
  report_medians(group, samples, report);
  const Judge judge{group, samples, report};
  judge.slower("general", bare, most);
  judge.slower("single", bare, most);
  judge.control(bare + " again", bare);
}

void measure_turns(const Options& options, Report& report) {
  measure_against("turns", "cache line",
                  {{"work", "turns"}, {"count", options.quick ? 100 : 200'000}}, 1.5, options,
                  report);
}

void measure_asleep(const Options& options, Report& report) {
  measure_against("asleep", "futex", {{"work", "asleep"}, {"count", options.quick ? 10 : 500}}, 1.1,
                  options, report);
}

void measure_moved(const Options& options, Report& report) {
  const std::string group = "moved";
  if (!options.wants(group)) return;
  const auto subject = [&](const std::string& name, std::size_t size, bool small, int count = 20) {
    return Contestant{name,
                      {{"work", "moved"},
                       {"until", "received"},
                       {"size", size},
                       {"small", small},
                       {"count", options.quick ? 2 : count}}};
  };
  const std::size_t large = options.quick ? 4_MiB : 256_MiB;
  const auto samples = measure_all(
      {subject("64 bytes", large, true), subject("256 MiB", large, false),
       subject("64 bytes again", large, true), subject("64 bytes, caches warm", 64, true, 2000)},
      options.pairs);
  report_medians(group, samples, report);
  const Judge judge{group, samples, report};
  judge.slower("256 MiB", "64 bytes", 1.05);
  judge.control("64 bytes again", "64 bytes");
}

void measure_gibibyte(const Options& options, Report& report) {
  const std::size_t size = options.quick ? 4_MiB : 1_GiB;
  for (const auto& [until, least] : {std::pair("mapped", 50.0), std::pair("read", 0.0)}) {
    const std::string group = std::string("gibibyte ") + until;
    if (!options.wants(group)) continue;
    const json common = {{"size", size}, {"count", 1}, {"until", until}};
    std::vector<Contestant> all = {{"moved", common}, {"pipe", common}, {"moved again", common}};
    for (Contestant& one : all) {
      one.configuration["work"] = one.name == "pipe" ? "piped" : "moved";
    }
    const auto samples = measure_all(all, std::min(options.pairs, 7));
    report_medians(group, samples, report);
    const Judge judge{group, samples, report};
    if (least != 0) {
      judge.faster("moved", "pipe", least);
    } else {
      report.ratio(group, "pipe to moved",
                   compare(samples_of(samples, "pipe"), samples_of(samples, "moved")));
    }
    judge.control("moved again", "moved");
  }
}

void measure_death(const Options& options, Report& report) {
  const std::string group = "death";
  if (!options.wants(group)) return;
  Subject subject(json{{"work", "death"}});
  std::vector<double> delays(options.quick ? 3 : 200);
  for (double& delay : delays) {
    delay = subject.ask({})["ns"].get<double>() / 1e6;
  }
  std::sort(delays.begin(), delays.end());
  const double p99 = delays[delays.size() * 99 / 100];
  report.figure(group, "median", median(delays), "ms");
  report.figure(group, "p99", p99, "ms");
  report.goal({group + ": noticed, p99", Goal::Bound::at_most, 10, "ms"}, p99);
}

void measure(const Options& options, Report& report) {
  report.setting("messages", "64 bytes, from one process to another on another CPU, 1,024 slots");
  report.setting("general, single", "Channel<T>::send and receive of either form, one by one");
  report.setting("batched", "send_batch and receive_batch of 64");
  report.setting("ring", "two indices and an array in shared memory, no more; batched: of 64");
  report.setting("boost", "boost::interprocess::message_queue, 1,024 messages, priority 0");
  report.setting("pipe", "write(2) of each message, fread(3) through a buffer of 64 KiB");
  report.setting("python",
                 "multiprocessing.Queue of /usr/bin/python3, bytes(64), put and get, between "
                 "processes that run");
  report.setting("turns",
                 "half a round between two processes that spin: send, and receive, which spins "
                 "before it sleeps");
  report.setting("cache line", "two atomics, stored to and spun on");
  report.setting("asleep", "from the send to a receiver that slept for 200 us");
  report.setting("futex", "a store and FUTEX_WAKE, to FUTEX_WAIT");
  report.setting("moved",
                 "from before send() to a spinning peer's return from try_receive(): of a buffer "
                 "of 256 MiB in which every page was just written to, or of 64 bytes just after "
                 "the same was done to such a buffer, which is kept");
  report.setting("gibibyte mapped",
                 "1 GiB, from before send() or write() until the peer has it all in its memory and "
                 "has read a byte of every page: moved, or through a pipe of 1 MiB into a buffer "
                 "that had its pages");
  report.setting("gibibyte read", "the same until the peer has read a byte of every cache line");
  report.setting("death", "from SIGKILL of a lock's holder to the return of a send that waits");
  if (!options.quick) touch_memory(4_GiB);
  measure_stream(options, report);
  measure_turns(options, report);
  measure_asleep(options, report);
  measure_moved(options, report);
  measure_gibibyte(options, report);
  measure_death(options, report);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "channel",
       .question = "how fast messages go between processes, against queues, pipes and the bare CPU",
       .pairs = 31,
       .measure = cowshed::bench::measure,
       .make_work = cowshed::bench::make_channel_work});
}
