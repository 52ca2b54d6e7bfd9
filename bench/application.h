#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "report.h"

// A real application, run in several ways: what `applications` measures.
namespace cowshed::bench {

// Each run is a process of its own, a subject, that is asked
//   {"do": "begin"}  to prepare its data and fork; answers "pids", those of the forked
//   {"do": "use"}    to do the application's work
//   {"do": "end"}
// Both answers may have "figures", by the names of metrics.
struct ApplicationWay {
  std::string name;
  nlohmann::json configuration;
  std::vector<std::string> environment = {};
  std::string program = {};  // beside this one
};

struct Metric {
  std::string name;
  std::string unit;
  bool is_time = true;  // else a count, that is not compared
};

// A run in which the copied pages of the forked are counted, instead of times taken.
struct CountedRun {
  std::string name;
  nlohmann::json configuration = nlohmann::json::object();  // what is different in it
};

struct Application {
  std::string name;
  // The last is the first again: a process like it, to tell noise from difference.
  std::vector<ApplicationWay> ways;
  nlohmann::json load;
  // Apart from the "memory" of all its processes.  A way may be without some.
  std::vector<Metric> metrics;
  std::vector<CountedRun> counted;
  // Whether the answers are right, as one process computes them that shares nothing.  Throws
  // std::runtime_error.
  std::function<void(const nlohmann::json& begin, const nlohmann::json& use)> check;
};

// Each way has answered rightly before any is timed, and each time that it is.
void measure_application(const Application& application, int pairs, Report& report);

}  // namespace cowshed::bench
