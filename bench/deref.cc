#include <algorithm>
#include <array>
#include <benchmark/benchmark.h>
#include <cstdint>
#include <fmt/format.h>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>

#include "machine.h"
#include "program.h"

// What it costs to use a reference, checks and all, where a raw pointer would do: by Google
// Benchmark, for one process suffices.
namespace cowshed::bench {
namespace {

constexpr std::size_t kObjects = 256;  // their references and slots fit the first cache
constexpr benchmark::IterationCount kRounds = 4096;  // of a sample: each object once

struct Object {
  std::uint64_t value;
  Ref<Object> next;  // round all of them
  const Object* next_raw;
};

struct Objects {
  Objects() {
    auto objects = arena.make_array<Object>(kObjects).value();
    for (std::size_t i = 0; i < kObjects; ++i) {
      refs.at(i) = publish(&objects[i]).value();
      pointers.at(i) = &objects[i];
    }
    for (std::size_t i = 0; i < kObjects; ++i) {
      const std::size_t next = (i * 5 + 1) % kObjects;  // visits each, in no order
      objects[i] = {i, refs.at(next), pointers.at(next)};
    }
    if (auto frozen = arena.freeze(); !frozen) throw std::runtime_error(frozen.error().message);
  }

  Arena arena = Arena::create({.name = "deref", .capacity = 16_MiB}).value();
  std::array<Ref<Object>, kObjects> refs;
  std::array<const Object*, kObjects> pointers{};
};

void check(benchmark::State& state, std::uint64_t sum) {
  const auto rounds = static_cast<std::uint64_t>(state.iterations());
  if (sum != rounds * (kObjects * (kObjects - 1) / 2))
    state.SkipWithError("a reference gave another object");
}

// The compiler must load each pointer or reference anew, as a program does.
template <class Handles, class Read>
void each(benchmark::State& state, const Handles& handles, Read read) {
  std::uint64_t sum = 0;
  for ([[maybe_unused]] auto _ : state) {
    for (const auto& handle : handles) sum += read(handle);
    benchmark::ClobberMemory();
  }
  check(state, sum);
}

// One after the other: what the next one is stands in the object.
template <class Handle, class Next>
void chain(benchmark::State& state, Handle handle, Next next) {
  std::uint64_t sum = 0;
  for ([[maybe_unused]] auto _ : state) {
    for (std::size_t i = 0; i < kObjects; ++i) {
      const Object& object = *handle;
      sum += object.value;
      handle = next(object);
    }
  }
  check(state, sum);
}

using Use = std::function<void(benchmark::State&)>;

// Keeps the times, prints nothing.
class Collector final : public benchmark::BenchmarkReporter {
 public:
  explicit Collector(std::vector<Samples>& samples) : samples_(samples) {}

  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.error_occurred) error_ = run.error_message;
      if (run.run_type != Run::RT_Iteration) continue;
      const auto found = std::find_if(samples_.begin(), samples_.end(), [&](const Samples& each) {
        return each.name == run.run_name.function_name;
      });
      found->values.push_back(run.GetAdjustedRealTime() / double{kObjects});
    }
  }

  const std::string& error() const { return error_; }

 private:
  std::vector<Samples>& samples_;
  std::string error_;
};

// Nanoseconds a use.
std::vector<Samples> run_by_turns(const std::vector<std::pair<std::string, Use>>& uses, int pairs) {
  std::vector<Samples> samples;
  benchmark::ClearRegisteredBenchmarks();
  for (const auto& [name, use] : uses) {
    samples.push_back({name, {}});
    benchmark::RegisterBenchmark(name.c_str(), use)->Iterations(kRounds)->Repetitions(pairs);
  }
  Collector collector(samples);
  benchmark::RunSpecifiedBenchmarks(&collector);
  if (!collector.error().empty()) throw std::runtime_error(collector.error());
  return samples;
}

// The first is the rival of the others.
void measure_group(const std::string& group, const std::vector<std::pair<std::string, Use>>& uses,
                   const Options& options, Report& report) {
  if (!options.wants(group)) return;
  const std::string& rival = uses.front().first;
  auto all = uses;
  all.emplace_back(rival + " again", uses.front().second);
  const auto samples = run_by_turns(all, options.pairs);
  for (const auto& [name, values] : samples) report.figure(group, name, median(values), "ns");
  const auto& basis = samples.front().values;
  for (std::size_t i = 1; i < uses.size(); ++i) {
    const auto added = compare(samples[i].values, basis);
    report.goal({fmt::format("{}: {} adds to a {}", group, samples[i].name, rival),
                 Goal::Bound::at_most, 1, "ns", group},
                added.difference, added.difference_interval);
  }
  report.control(group, compare(samples.back().values, basis));
}

void measure(const Options& options, Report& report) {
  report.setting(
      "independent",
      fmt::format("a sum over {} objects of 32 bytes, by an array of references or "
                  "pointers to them; a sample is {} such sums, by Google Benchmark, which "
                  "takes the samples of all in an order by chance",
                  kObjects, kRounds));
  report.setting("chained",
                 "each object holds the reference or pointer to the next one: the whole "
                 "latency of a use");
  std::array<std::string, 2> arguments = {"deref", "--benchmark_enable_random_interleaving=true"};
  std::array<char*, 3> argv = {arguments[0].data(), arguments[1].data(), nullptr};
  int argc = 2;
  benchmark::Initialize(&argc, argv.data());
  pin_to_cpu(0);
  const Objects objects;
  const auto by = [](const auto& handles, auto read) -> Use {
    return [&handles, read](benchmark::State& state) { each(state, handles, read); };
  };
  measure_group(
      "independent",
      {{"raw pointer", by(objects.pointers, [](const Object* object) { return object->value; })},
       {"*ref", by(objects.refs, [](const Ref<Object>& ref) { return (*ref).value; })},
       {"try_get()", by(objects.refs, [](const Ref<Object>& ref) { return ref.try_get()->value; })},
       {"get()", by(objects.refs, [](const Ref<Object>& ref) { return (*ref.get())->value; })}},
      options, report);
  const auto along = [](auto first, auto next) -> Use {
    return [first, next](benchmark::State& state) { chain(state, first, next); };
  };
  measure_group(
      "chained",
      {{"raw chain",
        along(objects.pointers[0], [](const Object& object) { return object.next_raw; })},
       {"*ref chain", along(objects.refs[0], [](const Object& object) { return object.next; })}},
      options, report);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(argc, argv,
                                     {.name = "deref",
                                      .question = "what a reference costs, against a raw pointer",
                                      .pairs = 63,
                                      .measure = cowshed::bench::measure});
}
