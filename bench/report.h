#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

#include "pairs.h"

// What a benchmark found: a table for people, one JSON object for programs.
namespace cowshed::bench {

struct Goal {
  enum class Bound { at_most, at_least };
  std::string what;
  Bound bound;
  double limit;
  std::string unit;        // empty: a ratio
  std::string group = {};  // of times: without a verdict where its control says that they are void
};

class Report {
 public:
  Report(std::string benchmark, std::string question);

  void setting(const std::string& name, const std::string& text);  // a rival's call and options
  void figure(const std::string& group, const std::string& name, double value,
              const std::string& unit);
  void ratio(const std::string& group, const std::string& name, const Comparison& comparison);
  // The same against itself: outside 0.95-1.05 the group's times are void, and its goals with them.
  void control(const std::string& group, const Comparison& comparison);

  // Met when the whole interval is on the right side of the limit, missed when all of it is on the
  // wrong one, else undecided; void with its group.
  void goal(const Goal& goal, double measured, Interval interval);
  void goal(const Goal& goal, double exact) { this->goal(goal, exact, {exact, exact}); }

  void print() const;
  void write_json(const std::string& file) const;  // throws std::runtime_error

 private:
  bool is_void(const std::string& group) const;

  nlohmann::json content_;
};

std::string size_name(std::size_t bytes);  // "64 MiB", "4 GiB"

}  // namespace cowshed::bench
