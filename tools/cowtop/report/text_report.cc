#include <algorithm>
#include <fmt/format.h>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/remedies.h>
#include <cowshed/tools/cowtop/analysis/summary.h>
#include <cowshed/tools/cowtop/report/head_lines.h>
#include <cowshed/tools/cowtop/report/screen_lines.h>
#include <cowshed/tools/cowtop/report/table_report.h>
#include <cowshed/tools/cowtop/report/text_report.h>
#include <cowshed/tools/cowtop/text/causes.h>
#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kMostGroups = 5;
constexpr std::size_t kMostMappings = 3;
constexpr std::size_t kMostCauses = 2;
constexpr std::ptrdiff_t kMostLines = 23;
// Of CODE and of OBJECTS, where there is room.
constexpr std::size_t kMostPlaces = 3;
constexpr std::size_t kMostAdvice = 2;
constexpr int kNameWidth = kColumns - 28;  // in WHAT to CODE

std::string who(const ProcessGroup& group, bool each_process) {
  std::string text = group.role == cow::Role::child ? "  " : "";
  if (each_process) text += fmt::format("{} ", group.pid);
  if (group.processes > 1) text += fmt::format("{} x ", group.processes);
  text += name_of(group);
  if (!group.container.empty()) text += fmt::format(" [{}]", group.container);
  if (group.is_older) text += " (older)";
  if (group.crash) text += " " + signal_name(*group.crash);
  if (group.most_status != 0) text += fmt::format(" exit {}", group.least_status);
  if (group.most_status > group.least_status) text += fmt::format(" to {}", group.most_status);
  return text;
}

// Of the table of processes.  The bar is of what is still shared.
struct WhoRow {
  std::string who;
  std::string shared;
  std::string copied;
  std::string new_memory;
  std::string still;
  std::optional<double> bar;
};

WhoRow who_row(const ProcessGroup& group, bool each_process) {
  WhoRow row{who(group, each_process), "-", "-", "-", "-", group.still_shared};
  const std::string each = group.processes > 1 ? " each" : "";
  if (group.copied_bytes) row.copied = copied_each(group) + " MiB" + (group.is_alike() ? each : "");
  if (group.new_bytes) row.new_memory = new_each(group) + " MiB";
  if (group.new_bytes && group.new_known < group.processes)
    row.new_memory = fmt::format("{} x {}", group.new_known, row.new_memory);
  if (group.has_executed) {
    row.still = "then ran it";
    return row;
  }
  if (group.shared_bytes) row.shared = wrapped(shared_each(group), kColumns).front();
  if (group.still_shared) row.still = fmt::format("{:>4}", whole_percent(*group.still_shared));
  return row;
}

// Those that executed programs, of whatever names, share nothing.
std::vector<WhoRow> executed_who(const Summary& summary) {
  std::uint64_t processes = 0;
  std::string names;
  for (const ProcessGroup& group : summary.groups) {
    if (!group.only_ran()) continue;
    processes += group.processes;
    const std::string name = name_of(group);
    if (names.find(name) == std::string::npos) names += (names.empty() ? "" : ", ") + name;
  }
  if (processes == 0) return {};
  return {{fmt::format("  {} x {}", processes, names), "-", "-", "-",
           processes == 1 ? "ran a program" : "ran programs", std::nullopt}};
}

std::string bar(double part, int cells) {
  constexpr double kHalf = 0.5;
  const int full = static_cast<int>(part * cells + kHalf);
  return " " + std::string(static_cast<std::size_t>(full), '#') +
         std::string(static_cast<std::size_t>(cells - full), '.');
}

// As wide as the screen: the names have what the figures leave, and the bars what both leave.
std::string table_of(const std::vector<WhoRow>& rows) {
  constexpr std::size_t kLongName = 40;
  constexpr int kLeastCells = 5;
  constexpr int kMostCells = 10;
  constexpr int kPercent = 5;  // columns before a bar
  constexpr int kSpaces = 10;  // before and between the columns
  const auto width_of = [&](std::string WhoRow::* cell) {
    std::size_t width = 0;
    for (const WhoRow& row : rows) width = std::max(width, (row.*cell).size());
    return static_cast<int>(width);
  };
  const int shared = width_of(&WhoRow::shared);
  const int copied = width_of(&WhoRow::copied);
  const int fresh = width_of(&WhoRow::new_memory);
  const int rest = kColumns - kSpaces - shared - copied - fresh;
  std::size_t names = 0;
  for (const WhoRow& row : rows)
    if (row.bar) names = std::max(names, std::min(row.who.size(), kLongName));
  int cells = std::min(rest - static_cast<int>(names) - kPercent, kMostCells);
  if (cells < kLeastCells) cells = 0;
  const int name = rest - std::max(width_of(&WhoRow::still), cells + kPercent);
  std::string text;
  for (const WhoRow& row : rows) {
    std::string line =
        fmt::format("  {}  {:>{}}  {:>{}}  {:>{}}  {}", live::fit(row.who, name, true), row.shared,
                    shared, row.copied, copied, row.new_memory, fresh, row.still);
    if (row.bar && cells > 0) line += bar(*row.bar, cells);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string who_lines(const Summary& summary, bool each_process) {
  std::vector<WhoRow> rows = {{"WHO", "SHARED", "COPIED", "NEW", "STILL SHARED", std::nullopt}};
  std::size_t shown = 0;
  std::uint64_t left_processes = 0;
  std::optional<std::uint64_t> left_copied = 0;
  std::optional<std::uint64_t> left_new = 0;
  for (const ProcessGroup& group : summary.groups) {
    if (group.only_ran() && !each_process) continue;
    if (each_process || shown < kMostGroups) {
      rows.push_back(who_row(group, each_process));
      ++shown;
      continue;
    }
    left_processes += group.processes;
    if (left_copied) *left_copied += group.copied_bytes.value_or(0);
    if (left_new) *left_new += group.new_bytes.value_or(0);
    if (group.role == cow::Role::child && !group.copied_bytes) left_copied.reset();
    if (!group.is_new_known) left_new.reset();
  }
  if (left_processes > 0)
    rows.push_back({fmt::format("  and {} more", left_processes), "",
                    left_copied ? mebibytes(left_copied) + " MiB" : "-",
                    left_new ? mebibytes(left_new) + " MiB" : "-", "", std::nullopt});
  if (!each_process) {
    const std::vector<WhoRow> executed = executed_who(summary);
    rows.insert(rows.end(), executed.begin(), executed.end());
  }
  return table_of(rows);
}

// Continued lines stand below the first one's text.
std::string titled(std::string_view title, const std::string& text) {
  constexpr int kTitleColumns = 9;
  std::string result;
  for (const std::string& line : wrapped(text, kColumns - kTitleColumns)) {
    const auto begin = line.find_first_not_of(' ');
    result += fmt::format("  {:<6} {}\n", result.empty() ? title : "",
                          result.empty() ? line : line.substr(begin));
  }
  return result;
}

// A row for each save of a database, say.
std::string parent_lines(const Summary& summary) {
  constexpr std::size_t kMostParents = 3;
  if (summary.groups.empty() || !summary.groups.front().is_parent) return {};
  std::string text;
  std::size_t shown = 0;
  for (const ParentCopies& each : summary.parents) {
    const bool is_part = each.shared_bytes && each.copied_bytes <= *each.shared_bytes;
    const std::string part =
        is_part ? fmt::format(" of {} ({})", mib(each.shared_bytes),
                              whole_percent(static_cast<double>(each.copied_bytes) /
                                            static_cast<double>(*each.shared_bytes)))
                : " MiB";
    text += titled(text.empty() ? "FORKS" : "",
                   fmt::format("child {}, {}{:.1f} s: its parent copied {}{}", each.child,
                               each.is_older ? "watched for the last " : "", each.watched_s,
                               mebibytes(each.copied_bytes), part));
    if (++shown == kMostParents) break;
  }
  if (summary.parents.size() > shown)
    text += titled("", fmt::format("and {} more", summary.parents.size() - shown));
  return text;
}

std::string share_lines(std::string_view title, const std::vector<Share>& shares, std::size_t most,
                        const std::function<std::string(const Share&)>& name) {
  std::string text;
  std::size_t shown = 0;
  for (const Share& share : shares) {
    if (shown == most || (share.of_all < kShownOfAll && share.remark.empty())) continue;
    std::string line =
        fmt::format("  {:<7}{:>8} MiB {:>4}  {}", shown == 0 ? title : "", mebibytes(share.bytes),
                    whole_percent(share.of_all), live::fit(name(share), kNameWidth, true));
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
    ++shown;
  }
  return text;
}

std::string saving(std::uint64_t bytes) {
  if (bytes == 0) return "";
  return fmt::format(" (saves at most {:.0f}{}MiB)", static_cast<double>(bytes) / kMiB, kNoBreak);
}

std::string advice_lines(const std::vector<Advice>& advice) {
  std::string text;
  for (std::size_t i = 0; i < std::min(advice.size(), kMostAdvice); ++i)
    text += titled(i == 0 ? "TRY" : "", advice[i].text + saving(advice[i].saves_bytes));
  return text;
}

std::string code_lines(const std::vector<Share>& sites, std::size_t most) {
  return share_lines("CODE", sites, most, [](const Share& share) {
    const bool is_long = live::columns_of(share.name) > kNameWidth;
    return is_long ? without_arguments(share.name) : share.name;
  });
}

std::string why_lines(const Summary& summary, const char* title, std::size_t most) {
  return share_lines(title, summary.causes, most, [](const Share& share) {
    const Cause* known = find_cause(share.name);
    const bool has_words = known != nullptr && !known->in_words.empty();
    return printable(share.name) + (has_words ? ": " + std::string(known->in_words) : "");
  });
}

std::string new_lines(const Summary& summary, std::size_t most) {
  return share_lines("NEW", summary.new_causes, most,
                     [](const Share& share) { return printable(share.name); });
}

// What was copied, why, of which objects, by which code; what is new; and what to do.
std::string cause_lines(const cow::Measurement& measurement, const Summary& summary,
                        std::size_t most_places) {
  std::string advice = advice_lines(advise(measurement, summary));
  if (summary.is_mostly_new()) {
    return new_lines(summary, kMostPlaces) + code_lines(summary.new_sites, most_places) +
           (summary.copied_bytes < kLeastBytes ? "" : why_lines(summary, "COPIED", 1)) + advice;
  }
  const std::string fresh = summary.has_new_memory() ? new_lines(summary, 1) : "";
  if (summary.is_little) return fresh + advice;
  if (!cures_for({&measurement, &summary}, cow::Language::native).empty())
    advice += titled(advice.empty() ? "TRY" : "",
                     "without an edit: cowtop cure -- COMMAND measures what helps");
  return parent_lines(summary) +
         share_lines("WHAT", summary.mappings, kMostMappings,
                     [](const Share& share) {
                       return printable(share.name) +
                              (share.remark.empty() ? "" : " (" + share.remark + ")");
                     }) +
         why_lines(summary, "WHY", kMostCauses) +
         share_lines("OBJECTS", summary.types, most_places,
                     [](const Share& share) { return printable(share.name); }) +
         code_lines(summary.sites, most_places) + fresh + advice;
}

}  // namespace

std::string text_report(const cow::Measurement& measurement, TextForm form) {
  if (form.wide) return table_report(measurement);
  const Summary summary = summarize(measurement);
  std::string text = head_lines(measurement, summary);
  constexpr std::size_t kMostNotMeasured = 2;
  text += lacking_lines(measurement, kMostNotMeasured) + "\n";
  text +=
      form.each_process ? who_lines(summarize(measurement, true), true) : who_lines(summary, false);
  const std::string more =
      titled("MORE", "cowtop help WORD explains a word; --wide has every count");
  std::string causes = cause_lines(measurement, summary, kMostPlaces);
  for (std::size_t places = kMostPlaces - 1; places > 0; --places) {
    const auto lines_of = [](const std::string& part) { return std::ranges::count(part, '\n'); };
    if (lines_of(text) + 1 + lines_of(causes) + lines_of(more) <= kMostLines) break;
    causes = cause_lines(measurement, summary, places);
  }
  return printable_lines(text + "\n" + causes + more);
}

}  // namespace cowshed::cowtop
