#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "pairs.h"
#include "subject.h"

// The programs that allocate in one way each, for the benchmarks that compare them.
namespace cowshed::bench {

struct FillWay {
  std::string name;
  std::string program;  // beside this one
  std::string variant;
  std::string provider;  // of malloc in it: part of a file's name
  std::vector<std::string> environment = {};
};

// Throws std::runtime_error when another library provides malloc there.
std::unique_ptr<Subject> start_way(const FillWay& way, nlohmann::json configuration);

// Nanoseconds per operation, of a fresh process each time: the memory must be new where it is
// filled, and where blocks come to lie differs from process to process (ASLR), not from time to
// time. A configuration is that of FillWork.
std::vector<Samples> measure_ways(const std::vector<FillWay>& ways,
                                  const nlohmann::json& configuration, int pairs);

}  // namespace cowshed::bench
