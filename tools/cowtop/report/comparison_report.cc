#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <string_view>

#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/recording/json_fields.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/report/comparison_report.h>
#include <cowshed/tools/cowtop/report/screen_lines.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {

namespace {

constexpr std::uint64_t kByte = 1;  // the units of changes

// 0.0% of nothing is not known.
std::string percent_of(const Change& change) {
  const auto growth = change.growth();
  if (!growth || !change.after || change.before.value_or(0) == 0) return "-";
  constexpr double kWhole = 100;
  return fmt::format("{:+.1f}%",
                     kWhole * static_cast<double>(*growth) / static_cast<double>(*change.before));
}

std::uint64_t size(std::int64_t growth) { return static_cast<std::uint64_t>(std::abs(growth)); }

// "-" is not known, "none" is of what was not there.
std::string row(const Change& change, std::string_view name, std::uint64_t unit) {
  const auto side = [&](std::optional<std::uint64_t> value) {
    if (!value) return std::string(change.is_known ? "none" : kUnknown);
    return mebibytes(*value * unit);
  };
  const auto growth = change.growth();
  const std::string grown =
      growth ? (*growth < 0 ? "-" : "+") + mebibytes(size(*growth) * unit) : kUnknown;
  return fmt::format("{:>12} {:>12} {:>12} {:>9}  {}\n", side(change.before), side(change.after),
                     grown, percent_of(change), name);
}

// Rows of 1 MiB or more that changed by a 20th, at most `most` of them.  The others are counted.
std::string section(const std::vector<Change>& changes, std::string_view title, std::uint64_t unit,
                    std::size_t most = 20) {
  if (changes.empty()) return {};
  std::string text = fmt::format("{}:\n", title);
  std::size_t shown = 0;
  std::size_t alike = 0;
  std::size_t not_known = 0;
  std::size_t left = 0;
  std::size_t small = 0;
  for (const Change& each : changes) {
    const std::uint64_t larger = std::max(each.before.value_or(0), each.after.value_or(0));
    const auto growth = each.growth();
    if (!each.before && !each.after) {
      ++not_known;
    } else if (larger * unit < kLeastBytes) {
      ++small;
    } else if (growth && !is_part(size(*growth), larger, kShownOfAll)) {
      ++alike;
    } else if (shown < most) {
      text += row(each, printable(each.name), unit);
      ++shown;
    } else {
      ++left;
    }
  }
  const auto count = [&](std::size_t rows, std::string_view what) {
    if (rows > 0) text += fmt::format("{:>50} more row{} {}\n", rows, rows == 1 ? "" : "s", what);
  };
  count(left, "with smaller changes, or not known: see --json");
  count(alike, "changed by less than 5%");
  count(small, "below 1 MiB");
  count(not_known, "not known on either side");
  return text;
}

// The line that most of a change is of; null: none is.
const Change* main_site(const Comparison& comparison, std::int64_t change) {
  if (comparison.sites.empty()) return nullptr;
  const Change& most = comparison.sites.front();
  const auto growth = most.growth();
  const bool is_most =
      growth && (*growth < 0) == (change < 0) && is_part(size(*growth), size(change), kHalfOfAll);
  return is_most ? &most : nullptr;
}

// "The processes copied 5.2 MiB instead of 51.0 MiB: 45.8 MiB less (-89.7%), mostly by fill()."
std::string verdict(const Comparison& comparison) {
  const Change& total = comparison.total;
  const auto bytes = [](std::optional<std::uint64_t> pages) {
    return pages ? std::optional(*pages * cow::kPageSize) : std::nullopt;
  };
  const std::string before = mib(bytes(total.before));
  const std::string after = mib(bytes(total.after));
  const auto growth = total.growth();
  if (!growth) {
    return fmt::format(
        "The copies cannot be compared: what some processes copied is not known ({} before, {} "
        "after).",
        before, after);
  }
  const std::uint64_t change = size(*growth) * cow::kPageSize;
  const auto [least, most] = std::minmax({*bytes(total.before), *bytes(total.after)});
  if (are_alike(least, most))
    return fmt::format("The processes copied about as much as before: {}, before {}.", after,
                       before);
  std::string text = fmt::format("The processes copied {} instead of {}: {} {}", after, before,
                                 mib(change), *growth < 0 ? "less" : "more");
  if (*total.before > 0) text += fmt::format(" ({})", percent_of(total));
  if (const Change* site = main_site(comparison, *growth))
    text += ", mostly by " + printable(site->name);
  return text + ".";
}

Json change_object(const Change& change) {
  return {{"before", or_null(change.before)},
          {"after", or_null(change.after)},
          {"growth", or_null(change.growth())}};
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

std::string peak_text(std::optional<std::uint64_t> known, const Comparison::Range& range) {
  if (known || !range) return mebibytes(known);
  return mebibytes(range->first) + " to " + mebibytes(range->second);
}

}  // namespace

std::string comparison_table(const Comparison& comparison, const ComparedNames& names) {
  std::string text =
      fmt::format("before: {}\nafter:  {}\n", printable(names.before), printable(names.after));
  text += lines_of(verdict(comparison));
  const Change& peak = comparison.peak_pss_bytes;
  if (comparison.peak_range_before || comparison.peak_range_after || peak.is_known) {
    text += fmt::format("memory of all processes at its peak (PSS): {} MiB, then {} MiB\n",
                        peak_text(peak.before, comparison.peak_range_before),
                        peak_text(peak.after, comparison.peak_range_after));
  }
  const auto heading = [](std::string_view what) {
    return fmt::format("{}, MiB\n{:>12} {:>12} {:>12}\n", what, "BEFORE", "AFTER", "CHANGE");
  };
  constexpr std::size_t kMostProcesses = 10;
  if (!comparison.process_new_bytes.empty())
    text += heading("new memory") +
            section(comparison.process_new_bytes, "forked processes", kByte, kMostProcesses) +
            row(comparison.new_bytes, "total", kByte);
  constexpr std::uint64_t kPage = cow::kPageSize;
  text += heading("copied") + section(comparison.processes, "processes", kPage);
  text += section(comparison.objects, "objects, sampled", kPage);
  text += section(comparison.sites, "code sites of all processes, estimated", kPage);
  text += section(comparison.mappings, "mappings of all processes, estimated", kPage);
  text += section(comparison.types, "types of Python objects of all processes, estimated", kPage);
  text += row(comparison.total, "total", kPage);
  if (comparison.at_exit.before.value_or(0) + comparison.at_exit.after.value_or(0) > 0)
    text +=
        row(comparison.at_exit, "in no row above: copied while programs ended, estimated", kPage);
  if (comparison.not_known_before + comparison.not_known_after > 0) {
    text += fmt::format(
        "{:>12} {:>12} {:>12} {:>9}  processes whose copies are not known, in no total\n",
        comparison.not_known_before, comparison.not_known_after, "", "");
  }
  return printable_lines(text);
}

std::string comparison_json(const Comparison& comparison, const ComparedNames& names) {
  Json total = change_object(comparison.total);
  total["processes_not_known_before"] = comparison.not_known_before;
  total["processes_not_known_after"] = comparison.not_known_after;
  const Json report = {{"schema", "cowshed.diff/1"},
                       {"before", names.before},
                       {"after", names.after},
                       {"unit", "pages"},
                       {"total", std::move(total)},
                       {"peak_pss_bytes", change_object(comparison.peak_pss_bytes)},
                       {"new_bytes", change_object(comparison.new_bytes)},
                       {"process_new_bytes", list(comparison.process_new_bytes)},
                       {"processes", list(comparison.processes)},
                       {"objects", list(comparison.objects)},
                       {"sites", list(comparison.sites)},
                       {"mappings", list(comparison.mappings)},
                       {"types", list(comparison.types)}};
  return text_of(report);
}

}  // namespace cowshed::cowtop
