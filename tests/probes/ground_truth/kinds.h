#pragma once

#include <span>
#include <string_view>

// What ground_truth_subject can do N times, by what it is about.
namespace ground_truth {

struct Kind {
  std::string_view name;
  void (*run)();
};

std::span<const Kind> kinds_of_mapping();
std::span<const Kind> kinds_of_system_call();
std::span<const Kind> kinds_of_large_page();
std::span<const Kind> kinds_of_barrier();
std::span<const Kind> kinds_of_process();
std::span<const Kind> kinds_of_lineage();
std::span<const Kind> kinds_of_reclaim();

}  // namespace ground_truth
