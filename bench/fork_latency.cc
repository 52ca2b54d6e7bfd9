#include <CLI/CLI.hpp>
#include <exception>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "fork_subject.h"
#include "statistics.h"

// How long fork() takes a process that holds much data in a frozen arena, against the same process
// with nothing in it.  Fresh processes per round; A B B A within it; A against A as the check that
// the difference is not noise; the same data on the ordinary heap for contrast.
namespace cowshed::bench {
namespace {

struct Options {
  std::size_t mebibytes = 2048;
  int rounds = 3;
  int pairs = 40;
  bool heap = true;
  bool json = false;
};

struct Comparison {
  std::vector<double> a;
  std::vector<double> b;
  std::vector<double> ratios;  // of each pair
};

// `pairs` times A and B, in the order A B, B A, A B, ...
void compare(Subject& a, Subject& b, int pairs, Comparison& into) {
  for (int i = 0; i < pairs; ++i) {
    Subject& first = i % 2 == 0 ? a : b;
    Subject& second = i % 2 == 0 ? b : a;
    const double one = first.fork_ns();
    const double two = second.fork_ns();
    into.a.push_back(i % 2 == 0 ? one : two);
    into.b.push_back(i % 2 == 0 ? two : one);
    into.ratios.push_back(into.a.back() / into.b.back());
  }
}

nlohmann::json summary(const Comparison& comparison) {
  const Interval interval = bootstrap_median(comparison.ratios);
  return {{"a_ns", median(comparison.a)},
          {"b_ns", median(comparison.b)},
          {"ratio", median(comparison.ratios)},
          {"ratio_low", interval.low},
          {"ratio_high", interval.high},
          {"ratio_of_medians", median(comparison.a) / median(comparison.b)}};
}

nlohmann::json measure(const Options& options) {
  const std::size_t bytes = options.mebibytes << 20U;
  Comparison full_to_empty;
  Comparison full_to_full;
  std::vector<double> heap;
  double huge_share = 1;
  for (int round = 0; round < options.rounds; ++round) {
    Subject full(Holds::arena, bytes);
    huge_share = std::min(huge_share, full.huge_share());
    {
      Subject empty(Holds::nothing, bytes);
      compare(full, empty, options.pairs, full_to_empty);
    }
    Subject same(Holds::arena, bytes);
    compare(full, same, options.pairs, full_to_full);
  }
  if (options.heap) {
    Subject ordinary(Holds::heap, bytes);
    for (int i = 0; i < options.pairs; ++i) {
      heap.push_back(ordinary.fork_ns());
    }
  }
  nlohmann::json result = {{"benchmark", "fork_latency"},
                           {"bytes", bytes},
                           {"rounds", options.rounds},
                           {"pairs", options.rounds * options.pairs},
                           {"huge_share", huge_share},
                           {"full_to_empty", summary(full_to_empty)},
                           {"full_to_full", summary(full_to_full)}};
  if (options.heap) {
    result["heap_ns"] = median(heap);
  }
  return result;
}

void print(const nlohmann::json& result) {
  const auto& goal = result["full_to_empty"];
  const auto& null = result["full_to_full"];
  fmt::print("fork() of a process with {} MiB in a frozen arena ({:.0f} % in 2 MiB pages)\n",
             result["bytes"].get<std::size_t>() >> 20U, result["huge_share"].get<double>() * 100);
  fmt::print("  A, frozen arena   {:10.1f} us\n", goal["a_ns"].get<double>() / 1000);
  fmt::print("  B, empty arena    {:10.1f} us\n", goal["b_ns"].get<double>() / 1000);
  if (result.contains("heap_ns")) {
    fmt::print("  ordinary heap     {:10.1f} us\n", result["heap_ns"].get<double>() / 1000);
  }
  fmt::print("  A/B  {:.3f}, 95 % [{:.3f}, {:.3f}], ratio of medians {:.3f}, {} pairs\n",
             goal["ratio"].get<double>(), goal["ratio_low"].get<double>(),
             goal["ratio_high"].get<double>(), goal["ratio_of_medians"].get<double>(),
             result["pairs"].get<int>());
  const double null_ratio = null["ratio"].get<double>();
  fmt::print("  A/A  {:.3f}, 95 % [{:.3f}, {:.3f}]{}\n", null_ratio,
             null["ratio_low"].get<double>(), null["ratio_high"].get<double>(),
             null_ratio < 0.95 || null_ratio > 1.05 ? ": outside 0.95-1.05, the run is void" : "");
}

int run(int argc, char** argv) {
  Options options;
  std::string subject;
  std::size_t subject_bytes = 0;
  CLI::App app("How long fork() takes with much data in a frozen arena, against none");
  app.add_option("--size", options.mebibytes, "MiB of small objects")->capture_default_str();
  app.add_option("--rounds", options.rounds, "rounds, each with fresh processes")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--pairs", options.pairs, "pairs per round")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_flag("!--no-heap", options.heap, "leave out the ordinary heap");
  app.add_flag("--json", options.json, "print one JSON object");
  app.add_option("--subject", subject)->group("");
  app.add_option("--bytes", subject_bytes)->group("");
  CLI11_PARSE(app, argc, argv);
  if (!subject.empty()) {
    return run_subject(subject, subject_bytes);
  }
  const auto result = measure(options);
  if (options.json) {
    fmt::print("{}\n", result.dump(2));
  } else {
    print(result);
  }
  return 0;
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  try {
    return cowshed::bench::run(argc, argv);
  } catch (const std::exception& failure) {
    fmt::print(stderr, "fork_latency: {}\n", failure.what());
    return 1;
  }
}
