#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <string_view>

#include <cowshed/tools/cowtop/comparison_report.h>
#include <cowshed/tools/cowtop/printable.h>

namespace cowshed::cowtop {

using Json = nlohmann::ordered_json;

namespace {

std::string count(const std::optional<std::uint64_t>& pages) {
  return pages ? fmt::format("{}", *pages) : "-";
}

// 0.0% of nothing is not known.
std::string percent(const Change& change) {
  if (!change.after || change.before.value_or(0) == 0) return "-";
  constexpr double kWhole = 100;
  return fmt::format("{:+.1f}%", kWhole * static_cast<double>(change.growth()) /
                                     static_cast<double>(*change.before));
}

std::string row(const Change& change, std::string_view name) {
  return fmt::format("{:>12} {:>12} {:>+12} {:>9}  {}\n", count(change.before), count(change.after),
                     change.growth(), percent(change), name);
}

std::string section(const std::vector<Change>& changes, std::string_view title) {
  constexpr std::size_t kMost = 20;
  if (changes.empty()) return {};
  std::string text = fmt::format("{}:\n", title);
  std::size_t shown = 0;
  std::size_t same = 0;
  std::size_t nothing = 0;
  std::size_t left = 0;
  for (const Change& each : changes) {
    if (each.growth() == 0) {
      ++(each.before == each.after ? same : nothing);
    } else if (shown < kMost) {
      text += row(each, printable(each.name));
      ++shown;
    } else {
      ++left;
    }
  }
  if (left > 0) text += fmt::format("{:>50} more changed: see --json\n", left);
  if (same > 0) text += fmt::format("{:>50} as before\n", same);
  if (nothing > 0) {
    text += fmt::format("{:>50} without a copy, of one side alone or not known of the other\n",
                        nothing);
  }
  return text;
}

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json change_object(const Change& change) {
  return {{"before", or_null(change.before)},
          {"after", or_null(change.after)},
          {"growth", change.growth()}};
}

Json list(const std::vector<Change>& changes) {
  Json array = Json::array();
  for (const Change& each : changes) {
    Json object = {{"name", each.name}};
    object.update(change_object(each));
    array.push_back(std::move(object));
  }
  return array;
}

}  // namespace

std::string comparison_table(const Comparison& comparison, const ComparedNames& names) {
  std::string text = fmt::format("before: {}\nafter:  {}\npages copied\n", printable(names.before),
                                 printable(names.after));
  text += fmt::format("{:>12} {:>12} {:>12} {:>9}\n", "BEFORE", "AFTER", "CHANGE", "");
  text += section(comparison.processes, "processes");
  text += section(comparison.objects, "objects, sampled");
  text += section(comparison.sites, "code sites of all processes, estimated");
  text += section(comparison.mappings, "mappings of all processes, estimated");
  return text + row(comparison.total, "total");
}

std::string comparison_json(const Comparison& comparison, const ComparedNames& names) {
  const Json report = {{"schema", "cowshed.diff/1"},
                       {"before", names.before},
                       {"after", names.after},
                       {"unit", "pages"},
                       {"total", change_object(comparison.total)},
                       {"processes", list(comparison.processes)},
                       {"objects", list(comparison.objects)},
                       {"sites", list(comparison.sites)},
                       {"mappings", list(comparison.mappings)}};
  return report.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace cowshed::cowtop
