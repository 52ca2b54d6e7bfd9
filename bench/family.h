#pragma once

#include <algorithm>
#include <benchmark/benchmark.h>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <cowshed/base/error.h>

// What the families of benchmarks have in common.
namespace cowshed::bench {

bool is_quick();  // tiny sizes: that it works, not how fast

inline std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

// Registers a benchmark whose time is what `sample` returns, in ns.  It may set counters.  An
// exception fails the benchmark with its message.
template <class Sample>
benchmark::internal::Benchmark* add(const std::string& name, Sample sample) {
  return benchmark::RegisterBenchmark(name.c_str(),
                                      [sample](benchmark::State& state) mutable {
                                        for ([[maybe_unused]] auto _ : state) {
                                          try {
                                            state.SetIterationTime(sample(state) / 1e9);
                                          } catch (const std::exception& failure) {
                                            state.SkipWithError(failure.what());
                                            break;
                                          }
                                        }
                                      })
      ->Iterations(1)
      ->UseManualTime();
}

// Of what takes microseconds, a single time says more about the caches that others left: up to 9
// in a row, none begun after 10 ms.
template <class Once>
auto repeat(Once once) {
  const std::uint64_t end = now_ns() + 10'000'000;
  std::vector<decltype(once())> results;
  do {
    results.push_back(once());
  } while (results.size() < 9 && now_ns() < end);
  return results;
}

inline double median(std::vector<double> values) {
  std::ranges::sort(values);
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

// The value, or std::runtime_error.
template <class T>
T got(Expected<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

void add_fork();
void add_fill();
void add_freeze();
void add_deref();
void add_channel();
void add_start();
void add_settle();
void add_memory();

}  // namespace cowshed::bench
