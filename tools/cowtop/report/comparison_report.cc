#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <string_view>

#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/recording/json_fields.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/report/comparison_report.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {

namespace {

// 0.0% of nothing is not known.
std::string percent_of(const Change& change) {
  const auto growth = change.growth();
  if (!growth || !change.after || change.before.value_or(0) == 0) return "-";
  constexpr double kWhole = 100;
  return fmt::format("{:+.1f}%",
                     kWhole * static_cast<double>(*growth) / static_cast<double>(*change.before));
}

enum class In : std::uint8_t { pages, mib };

// "-" is not known, "none" is of what was not there.
std::string row(const Change& change, std::string_view name, In unit = In::pages) {
  const auto side = [&](std::optional<std::uint64_t> value) {
    if (!value && change.is_known) return std::string("none");
    return unit == In::mib ? mebibytes(value) : count(value);
  };
  const auto growth = change.growth();
  const std::string grown = !growth ? "-"
                            : unit == In::mib
                                ? fmt::format("{:+.1f}", static_cast<double>(*growth) / kMiB)
                                : fmt::format("{:+}", *growth);
  return fmt::format("{:>12} {:>12} {:>12} {:>9}  {}\n", side(change.before), side(change.after),
                     grown, percent_of(change), name);
}

// Of processes, in MiB: those above 1 MiB that changed by a 20th.
std::string mib_rows(const std::vector<Change>& changes) {
  constexpr std::size_t kMost = 10;
  std::string text;
  std::size_t shown = 0;
  std::size_t left = 0;
  for (const Change& each : changes) {
    const std::uint64_t most = std::max(each.before.value_or(0), each.after.value_or(0));
    const auto growth = each.growth();
    const bool is_alike =
        growth && !is_part(static_cast<std::uint64_t>(std::abs(*growth)), most, kShownOfAll);
    if (most < kLeastBytes || is_alike || shown == kMost) {
      ++left;
      continue;
    }
    text += row(each, printable(each.name), In::mib);
    ++shown;
  }
  if (left > 0) text += fmt::format("{:>50} more, or changed by less: see --json\n", left);
  return text;
}

// `little`: rows of fewer pages on both sides are only counted.
std::string section(const std::vector<Change>& changes, std::string_view title,
                    std::uint64_t little = 0) {
  constexpr std::size_t kMost = 20;
  if (changes.empty()) return {};
  std::string text = fmt::format("{}:\n", title);
  std::size_t shown = 0;
  std::size_t same = 0;
  std::size_t nothing = 0;
  std::size_t not_known = 0;
  std::size_t left = 0;
  std::size_t small = 0;
  for (const Change& each : changes) {
    if (!each.before && !each.after) {
      ++not_known;
    } else if (each.growth() == 0) {
      ++(each.before == each.after ? same : nothing);
    } else if (std::max(each.before.value_or(0), each.after.value_or(0)) < little) {
      ++small;
    } else if (shown < kMost) {
      text += row(each, printable(each.name));
      ++shown;
    } else {
      ++left;
    }
  }
  if (left > 0) text += fmt::format("{:>50} more, changed or not known: see --json\n", left);
  if (small > 0) text += fmt::format("{:>50} of less than 1% of all copies\n", small);
  if (same > 0) text += fmt::format("{:>50} as before\n", same);
  if (nothing > 0) text += fmt::format("{:>50} without a copy, of one side alone\n", nothing);
  if (not_known > 0) text += fmt::format("{:>50} not known of either side\n", not_known);
  return text;
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
  const std::string heading =
      fmt::format("{:>12} {:>12} {:>12} {:>9}\n", "BEFORE", "AFTER", "CHANGE", "");
  if (!comparison.process_peaks.empty())
    text += "memory (PSS), MiB\n" + heading + "processes, each at its peak:\n" +
            mib_rows(comparison.process_peaks);
  if (!comparison.process_new_bytes.empty())
    text += "new memory, MiB\n" + heading + "forked processes:\n" +
            mib_rows(comparison.process_new_bytes) + row(comparison.new_bytes, "total", In::mib);
  text += "pages copied\n" + heading;
  text += section(comparison.processes, "processes");
  text += section(comparison.objects, "objects, sampled");
  const auto little = static_cast<std::uint64_t>(
      kLittleOfAll * static_cast<double>(std::max(comparison.total.before.value_or(0),
                                                  comparison.total.after.value_or(0))));
  text += section(comparison.sites, "code sites of all processes, estimated", little);
  text += section(comparison.mappings, "mappings of all processes, estimated", little);
  text += section(comparison.types, "types of Python objects of all processes, estimated", little);
  text += row(comparison.total, "total");
  if (comparison.at_exit.before.value_or(0) + comparison.at_exit.after.value_or(0) > 0)
    text += row(comparison.at_exit, "in no row above: copied while programs ended, estimated");
  const Change& peak = comparison.peak_pss_bytes;
  if (comparison.peak_range_before || comparison.peak_range_after || peak.is_known) {
    text += fmt::format("memory of all processes at its peak (PSS): {} MiB, then {} MiB\n",
                        peak_text(peak.before, comparison.peak_range_before),
                        peak_text(peak.after, comparison.peak_range_after));
  }
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
                       {"process_peaks", list(comparison.process_peaks)},
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
