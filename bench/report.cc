#include "report.h"

#include <algorithm>
#include <fmt/format.h>
#include <fstream>
#include <stdexcept>
#include <utility>

#include "machine.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;

std::string number(double value) {
  if (value >= 1000 || value == static_cast<double>(static_cast<long long>(value)))
    return fmt::format("{:.0f}", value);
  return value >= 10 ? fmt::format("{:.1f}", value) : fmt::format("{:.3f}", value);
}

std::string interval_text(const json& row) {
  return fmt::format("{} [{}, {}]", number(row["measured"]), number(row["low"]),
                     number(row["high"]));
}

json comparison_json(const Comparison& comparison) {
  return {{"measured", comparison.ratio},
          {"low", comparison.interval.low},
          {"high", comparison.interval.high},
          {"pairs", comparison.pairs}};
}

std::size_t width(const json& rows, const char* field) {
  std::size_t result = 0;
  for (const auto& row : rows)
    result = std::max(result, row[field].get_ref<const std::string&>().size());
  return result;
}

std::string text(const json& row, const char* field) { return row[field].get<std::string>(); }

}  // namespace

std::string size_name(std::size_t bytes) {
  constexpr std::size_t kGiB = std::size_t{1} << 30U;
  return bytes >= kGiB && bytes % kGiB == 0 ? fmt::format("{} GiB", bytes >> 30U)
                                            : fmt::format("{} MiB", bytes >> 20U);
}

Report::Report(std::string benchmark, std::string question)
    : content_({{"benchmark", std::move(benchmark)},
                {"question", std::move(question)},
                {"machine", describe_machine()},
                {"settings", json::array()},
                {"figures", json::array()},
                {"ratios", json::array()},
                {"controls", json::array()},
                {"goals", json::array()}}) {}

void Report::setting(const std::string& name, const std::string& text) {
  content_["settings"].push_back({{"name", name}, {"text", text}});
}

void Report::figure(const std::string& group, const std::string& name, double value,
                    const std::string& unit) {
  content_["figures"].push_back(
      {{"group", group}, {"name", name}, {"value", value}, {"unit", unit}});
}

void Report::ratio(const std::string& group, const std::string& name,
                   const Comparison& comparison) {
  json row = comparison_json(comparison);
  row["group"] = group;
  row["name"] = name;
  content_["ratios"].push_back(std::move(row));
}

void Report::control(const std::string& group, const Comparison& comparison) {
  json row = comparison_json(comparison);
  row["group"] = group;
  row["void"] = comparison.ratio < 0.95 || comparison.ratio > 1.05;
  content_["controls"].push_back(std::move(row));
  for (auto& judged : content_["goals"])
    if (judged["group"] == group && is_void(group)) judged["verdict"] = "void";
}

bool Report::is_void(const std::string& group) const {
  const auto& controls = content_["controls"];
  return std::any_of(controls.begin(), controls.end(), [&](const json& row) {
    return row["group"] == group && row["void"].get<bool>();
  });
}

void Report::goal(const Goal& goal, double measured, Interval interval) {
  const bool at_most = goal.bound == Goal::Bound::at_most;
  const bool low_is_fine = at_most ? interval.low <= goal.limit : interval.low >= goal.limit;
  const bool high_is_fine = at_most ? interval.high <= goal.limit : interval.high >= goal.limit;
  const char* verdict = is_void(goal.group)           ? "void"
                        : low_is_fine && high_is_fine ? "met"
                        : low_is_fine || high_is_fine ? "undecided"
                                                      : "missed";
  content_["goals"].push_back({{"what", goal.what},
                               {"group", goal.group},
                               {"bound", at_most ? "at_most" : "at_least"},
                               {"limit", goal.limit},
                               {"unit", goal.unit},
                               {"measured", measured},
                               {"low", interval.low},
                               {"high", interval.high},
                               {"verdict", verdict}});
}

void Report::print() const {
  fmt::print("{}: {}\n", text(content_, "benchmark"), text(content_, "question"));
  for (const auto& row : content_["settings"])
    fmt::print("  {}: {}\n", text(row, "name"), text(row, "text"));
  const auto& figures = content_["figures"];
  for (const auto& row : figures) {
    fmt::print("  {:{}}  {:{}}  {:>9} {}\n", text(row, "group"), width(figures, "group"),
               text(row, "name"), width(figures, "name"), number(row["value"]), text(row, "unit"));
  }
  if (!content_["ratios"].empty() || !content_["controls"].empty())
    fmt::print("ratios: median of the pairs' ratios, 95 % interval\n");
  const auto& ratios = content_["ratios"];
  for (const auto& row : ratios) {
    fmt::print("  {:{}}  {:{}}  {}, {} pairs\n", text(row, "group"), width(ratios, "group"),
               text(row, "name"), width(ratios, "name"), interval_text(row),
               row["pairs"].get<int>());
  }
  for (const auto& row : content_["controls"]) {
    fmt::print("  {}  the same against itself  {}{}\n", text(row, "group"), interval_text(row),
               row["void"].get<bool>() ? ": outside 0.95-1.05, the times are void" : "");
  }
  const auto& goals = content_["goals"];
  if (!goals.empty()) fmt::print("goals\n");
  for (const auto& row : goals) {
    const std::string unit = text(row, "unit");
    fmt::print("  {:9}  {:{}}  {} {}{}: {}\n", text(row, "verdict"), text(row, "what"),
               width(goals, "what"), row["bound"] == "at_most" ? "at most" : "at least",
               number(row["limit"]), unit.empty() ? unit : " " + unit, interval_text(row));
  }
}

void Report::write_json(const std::string& file) const {
  std::ofstream stream(file);
  stream << content_.dump(2) << "\n";
  stream.close();
  if (!stream) throw std::runtime_error(file + " cannot be written");
}

}  // namespace cowshed::bench
