#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <string_view>
#include <vector>

#include <cowshed/tools/cowtop/analysis/findings.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
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
constexpr std::size_t kMostRows = 3;  // of WHAT, OBJECTS, CODE and NEW
constexpr std::size_t kMostCauses = 2;
constexpr std::ptrdiff_t kMostLines = 23;
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
  if (group.out_of_memory && !group.out_of_memory->is_sure) text += "?";
  if (group.most_status != 0) text += fmt::format(" exit {}", group.least_status);
  if (group.most_status > group.least_status) text += fmt::format(" to {}", group.most_status);
  return text;
}

// Of the table of processes.  The bar is of what is still shared.
struct WhoRow {
  std::string who;
  std::string shared;
  std::string copied;
  std::string own;
  std::string still;
  std::optional<double> bar;
};

WhoRow who_row(const ProcessGroup& group, bool each_process) {
  WhoRow row{who(group, each_process), "-", "-", "-", "-", group.still_shared};
  const std::string each = group.processes > 1 ? " each" : "";
  if (group.copied_bytes)
    row.copied = breakable(copied_each(group)) + (group.is_alike() ? each : "");
  if (group.own_bytes) row.own = breakable(own_each(group));
  if (group.own_bytes && group.own_known < group.processes)
    row.own = fmt::format("{} x {}", group.own_known, row.own);
  if (group.has_executed) {
    row.still = group.only_ran() ? "ran it" : "then ran it";
    return row;
  }
  if (group.shared_bytes) row.shared = breakable(shared_each(group));
  if (group.still_shared) row.still = fmt::format("{:>4}", whole_percent(*group.still_shared));
  return row;
}

// Those that executed programs, of whatever names, share nothing.
std::vector<WhoRow> executed_who(const Summary& summary) {
  std::uint64_t processes = 0;
  std::string names;
  for (const ProcessGroup& group : summary.groups) {
    if (!group.is_small()) continue;
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
  const int own = width_of(&WhoRow::own);
  const int rest = kColumns - kSpaces - shared - copied - own;
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
                    shared, row.copied, copied, row.own, own, row.still);
    if (row.bar && cells > 0) line += bar(*row.bar, cells);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string who_lines(const Summary& summary, bool each_process) {
  std::vector<WhoRow> rows = {{"WHO", "SHARED", "COPIED", "OWN", "STILL SHARED", std::nullopt}};
  std::size_t shown = 0;
  std::uint64_t left_processes = 0;
  std::optional<std::uint64_t> left_copied = 0;
  std::optional<std::uint64_t> left_own = 0;
  for (const ProcessGroup& group : summary.groups) {
    if (group.is_small() && !each_process) continue;
    if (each_process || shown < kMostGroups) {
      rows.push_back(who_row(group, each_process));
      ++shown;
      continue;
    }
    left_processes += group.processes;
    if (left_copied) *left_copied += group.copied_bytes.value_or(0);
    if (left_own) *left_own += group.own_bytes.value_or(0);
    if (group.role == cow::Role::child && !group.copied_bytes) left_copied.reset();
    if (group.own_known < group.processes) left_own.reset();
  }
  if (left_processes > 0)
    rows.push_back({fmt::format("  and {} more", left_processes), "",
                    left_copied ? breakable(mib(left_copied)) : "-",
                    left_own ? breakable(mib(left_own)) : "-", "", std::nullopt});
  if (summary.shared_memory_bytes > 0)
    rows.push_back({summary.is_shared_memory_least ? "shared memory, at least" : "shared memory",
                    breakable(mib(summary.shared_memory_bytes)), "-", "-",
                    summary.shared_memory_by.empty() ? "-" : "of " + summary.shared_memory_by,
                    std::nullopt});
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
std::string parent_lines(const Summary& summary, const std::vector<Finding>& findings) {
  constexpr std::size_t kMostParents = 3;
  const std::vector<Finding> forks = of_kind(findings, FindingKind::parent);
  std::string text;
  for (std::size_t i = 0; i < std::min(forks.size(), kMostParents); ++i) {
    const ParentCopies& each = summary.parents[forks[i].index];
    const bool is_part = each.shared_bytes && each.copied_bytes <= *each.shared_bytes;
    const std::string whole = mib(each.shared_bytes);
    std::string copied = mib(each.copied_bytes);
    if (is_part)
      copied = fmt::format("{} of {} ({})", without_unit_of(whole, copied), whole,
                           whole_percent(static_cast<double>(each.copied_bytes) /
                                         static_cast<double>(*each.shared_bytes)));
    text +=
        titled(text.empty() ? "FORKS" : "",
               fmt::format("child {}, {}{:.1f} s: its parent copied {}", each.child,
                           each.is_older ? "watched for the last " : "", each.watched_s, copied));
  }
  if (forks.size() > kMostParents)
    text += titled("", fmt::format("and {} more", forks.size() - kMostParents));
  return text;
}

std::string name_of(const Finding& finding) {
  const std::string name = printable(finding.subject);
  if (finding.kind == FindingKind::site || finding.kind == FindingKind::new_site)
    return live::columns_of(name) > kNameWidth ? without_arguments(name) : name;
  if (finding.kind == FindingKind::cause) return cause_in_words(finding.subject, finding.remark);
  if (finding.kind == FindingKind::new_cause && !finding.remark.empty())
    return name + ": " + finding.remark;
  return name + (finding.remark.empty() ? "" : " (" + finding.remark + ")");
}

// A row for each of the findings, at most so many.
std::string rows_of(std::string_view title, const std::vector<Finding>& findings, FindingKind kind,
                    std::size_t most) {
  std::string text;
  for (const Finding& each : of_kind(findings, kind)) {
    if (most-- == 0) break;
    const double part = static_cast<double>(each.bytes) /
                        static_cast<double>(std::max<std::uint64_t>(each.of_bytes, 1));
    std::string line = fmt::format("  {:<7}{:>12} {:>4}  {}", text.empty() ? title : "",
                                   breakable(mib(each.bytes)), whole_percent(part),
                                   live::fit(name_of(each), kNameWidth, true));
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string saving(const Advice& advice) {
  const std::uint64_t bytes = advice.saves_bytes;
  if (bytes == 0 || !advice.is_known) return "";
  const std::string whole = fmt::format("{:.0f}{}MiB", static_cast<double>(bytes) / kMiB, kNoBreak);
  return fmt::format(" (saves at most {})", mib(bytes).ends_with("GiB") ? mib(bytes) : whole);
}

std::string advice_lines(const std::vector<Advice>& advice) {
  std::string text;
  for (std::size_t i = 0; i < std::min(advice.size(), kMostAdvice); ++i)
    text += titled(i == 0 ? "TRY" : "", advice[i].text + saving(advice[i]));
  return text;
}

// What was copied, why, of which objects, by which code; what is new; and what to do.
std::string cause_lines(const cow::Measurement& measurement, const Summary& summary,
                        const std::vector<Finding>& findings, const std::vector<Advice>& remedies) {
  using enum FindingKind;
  const auto rows = [&](std::string_view title, FindingKind kind, std::size_t most) {
    return rows_of(title, findings, kind, most);
  };
  std::string advice = advice_lines(remedies);
  if (summary.is_mostly_new()) {
    return rows("NEW", new_cause, kMostRows) + rows("CODE", new_site, kMostRows) +
           (summary.copied_bytes < kLeastBytes ? "" : rows("COPIED", cause, 1)) + advice;
  }
  const std::string fresh = summary.has_new_memory() ? rows("NEW", new_cause, 1) : "";
  if (summary.is_little) return fresh + advice;
  if (!cures_for({&measurement, &summary}, cow::Language::native).empty())
    advice += titled(advice.empty() ? "TRY" : "",
                     "without an edit: cowtop cure -- COMMAND measures what helps");
  return parent_lines(summary, findings) + rows("WHAT", mapping, kMostRows) +
         rows("WHY", cause, kMostCauses) + rows("OBJECTS", type, kMostRows) +
         rows("CODE", site, kMostRows) + fresh + advice;
}

}  // namespace

std::string text_report(const cow::Measurement& measurement, TextForm form) {
  if (form.wide) return table_report(measurement);
  constexpr std::size_t kMostNotMeasured = 2;
  constexpr int kHeaviest = 9;
  const Summary summary = summarize(measurement);
  std::vector<Finding> findings = findings_of(measurement, summary);
  const std::vector<Advice> remedies = remedies_of(findings);
  const std::string table = lacking_lines(measurement, kMostNotMeasured) + "\n" +
                            (form.each_process ? who_lines(summarize(measurement, true), true)
                                               : who_lines(summary, false));
  const std::string more =
      titled("MORE", "cowtop help WORD explains a word; --wide has every count");
  std::string text;
  for (int least = 1; least <= kHeaviest; ++least) {
    std::erase_if(findings, [&](const Finding& each) { return each.weight < least; });
    text = fmt::format("{}{}\n{}{}", head_lines(measurement, summary, findings), table,
                       cause_lines(measurement, summary, findings, remedies), more);
    if (std::ranges::count(text, '\n') <= kMostLines) break;
  }
  return printable_lines(text);
}

std::string advice_on(const cow::Measurement& measurement, const cow::ProcessCopies& process) {
  cow::Measurement alone;
  alone.exact = measurement.exact;
  alone.taken_ns = measurement.taken_ns;
  alone.sampling = measurement.sampling;
  alone.sampled = process.sampled;
  alone.processes = {process};
  const Summary summary = summarize(alone);
  return printable_lines(advice_lines(remedies_of(findings_of(alone, summary))));
}

}  // namespace cowshed::cowtop
