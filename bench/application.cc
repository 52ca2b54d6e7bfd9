#include "application.h"

#include <fmt/format.h>
#include <map>
#include <stdexcept>
#include <sys/types.h>

#include <cowshed/base/size_literals.h>
#include <cowshed/cow/meter.h>

#include "copies.h"
#include "got.h"
#include "machine.h"
#include "pairs.h"
#include "subject.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;
using namespace cowshed::size_literals;

constexpr const char* kMemory = "memory";

std::size_t pss_of(pid_t pid) {
  return proc_bytes(fmt::format("/proc/{}/smaps_rollup", pid), "Pss");
}

json configuration(const Application& application, const ApplicationWay& way, const json& more) {
  json result = application.load;
  result["application"] = application.name;
  result.update(way.configuration);
  result.update(more);
  return result;
}

// One run of one way, from its process's start to its end.
class ApplicationRun {
 public:
  ApplicationRun(const Application& application, const ApplicationWay& way, const json& more)
      : application_(application),
        way_(way),
        subject_(configuration(application, way, more), way.program, way.environment),
        begin_(subject_.ask({{"do", "begin"}})),
        pids_(begin_["pids"].get<std::vector<pid_t>>()) {}

  std::map<std::string, double> figures() {
    use();
    std::size_t memory = pss_of(subject_.facts()["pid"]);
    for (const pid_t pid : pids_) memory += pss_of(pid);
    end();
    std::map<std::string, double> result;
    result[kMemory] = static_cast<double>(memory) / static_cast<double>(1_MiB);
    for (const json& answer : {begin_, use_}) {
      result.merge(answer.value("figures", std::map<std::string, double>()));
    }
    return result;
  }

  Copies copies() {
    std::vector<cow::Meter> meters;
    for (const pid_t pid : pids_) meters.push_back(got(cow::Meter::begin(pid)));
    use();
    Copies result;
    for (cow::Meter& meter : meters) result.add(meter);
    end();
    return result;
  }

 private:
  void use() {
    use_ = subject_.ask({{"do", "use"}});
    try {
      application_.check(begin_, use_);
    } catch (const std::runtime_error& failure) {
      throw std::runtime_error(
          fmt::format("{}, {}: {}", application_.name, way_.name, failure.what()));
    }
  }
  void end() { subject_.ask({{"do", "end"}}); }

  const Application& application_;
  const ApplicationWay& way_;
  Subject subject_;
  json begin_;
  json use_;
  std::vector<pid_t> pids_;
};

// Of each way, the values of one metric; empty where a way has none.
using Values = std::vector<std::vector<double>>;

Values values_of(const std::string& metric,
                 const std::vector<std::vector<std::map<std::string, double>>>& figures) {
  Values result;
  for (const auto& runs : figures) {
    result.emplace_back();
    for (const auto& run : runs) {
      if (run.contains(metric)) result.back().push_back(run.at(metric));
    }
  }
  return result;
}

void report_metric(const Application& application, const Metric& metric, const Values& values,
                   Report& report) {
  const std::string group = application.name + "/" + metric.name;
  for (std::size_t i = 0; i + 1 < values.size(); ++i) {
    if (values[i].empty()) continue;
    const std::string& name = application.ways[i].name;
    report.figure(group, name, median(values[i]), metric.unit);
    if (!metric.is_time || i == 0) continue;
    report.ratio(group, name + " to " + application.ways[0].name, compare(values[i], values[0]));
  }
  if (metric.is_time) report.control(group, compare(values.back(), values.front()));
}

void count_copies(const Application& application, const CountedRun& run, Report& report) {
  const std::string group = application.name + "/" + run.name;
  for (std::size_t i = 0; i + 1 < application.ways.size(); ++i) {
    const ApplicationWay& way = application.ways[i];
    const Copies copies = ApplicationRun(application, way, run.configuration).copies();
    report.figure(group, way.name, static_cast<double>(copies.pages), "");
    if (i != 0) continue;
    report.goal({group + ": of the arena", Goal::Bound::at_most, 0, ""},
                static_cast<double>(copies.arena_pages));
  }
}

}  // namespace

void measure_application(const Application& application, int pairs, Report& report) {
  std::vector<std::vector<std::map<std::string, double>>> figures(application.ways.size());
  std::vector<Variant> variants;
  for (std::size_t i = 0; i < application.ways.size(); ++i) {
    const ApplicationWay& way = application.ways[i];
    ApplicationRun(application, way, json::object()).figures();  // is it right?
    variants.push_back({way.name, [&, i] {
                          ApplicationRun run(application, way, json::object());
                          figures[i].push_back(run.figures());
                          return figures[i].back().at(kMemory);
                        }});
  }
  interleave(variants, pairs);
  std::vector<Metric> metrics = application.metrics;
  metrics.push_back({kMemory, "MiB"});
  for (const Metric& metric : metrics) {
    report_metric(application, metric, values_of(metric.name, figures), report);
  }
  for (const CountedRun& run : application.counted) count_copies(application, run, report);
}

}  // namespace cowshed::bench
