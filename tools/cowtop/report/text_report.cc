#include <algorithm>
#include <fmt/format.h>
#include <functional>
#include <string_view>
#include <vector>

#include <cowshed/tools/cowtop/analysis/advice.h>
#include <cowshed/tools/cowtop/analysis/cures.h>
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
constexpr double kLeastShare = 0.05;
constexpr int kNameWidth = kColumns - 28;  // in WHAT to CODE

constexpr int kNameColumns = 30;

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

std::string bar(double part) {
  constexpr int kCells = 10;
  constexpr double kHalf = 0.5;
  const int full = static_cast<int>(part * kCells + kHalf);
  return std::string(static_cast<std::size_t>(full), '#') +
         std::string(static_cast<std::size_t>(kCells - full), '.');
}

std::string row(std::string_view who, std::string_view shared, std::string_view copied,
                std::string_view still) {
  constexpr int kSharedColumns = 11;
  const int wide = std::max(live::columns_of(shared) - kSharedColumns, 0);
  std::string line = fmt::format("  {} {:>11}  {:<18} {}",
                                 live::fit(who, kNameColumns - wide, true), shared, copied, still);
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

std::string group_line(const ProcessGroup& group, bool each_process) {
  std::string shared = group.shared_bytes ? wrapped(shared_each(group), kColumns).front() : "-";
  std::string copied = group.copied_bytes ? copied_each(group) + " MiB" : "-";
  if (group.processes > 1 && group.copied_bytes && group.is_alike()) copied += " each";
  std::string still = "-";
  if (group.still_shared)
    still = fmt::format("{:>4} {}", whole_percent(*group.still_shared), bar(*group.still_shared));
  if (group.has_executed) shared = "-", still = "then ran it";
  return row(who(group, each_process), shared, copied, still);
}

// Those that executed programs, of whatever names, share nothing.
std::string executed_line(const Summary& summary) {
  std::uint64_t processes = 0;
  std::string names;
  for (const ProcessGroup& group : summary.groups) {
    if (!group.only_ran()) continue;
    processes += group.processes;
    const std::string name = name_of(group);
    if (names.find(name) == std::string::npos) names += (names.empty() ? "" : ", ") + name;
  }
  if (processes == 0) return {};
  return row(fmt::format("  {} x {}", processes, names), "-", "-",
             processes == 1 ? "ran a program" : "ran programs");
}

std::string who_lines(const Summary& summary, bool each_process) {
  std::string text = row("WHO", "SHARED", "COPIED", "STILL SHARED");
  std::size_t shown = 0;
  std::uint64_t left_processes = 0;
  std::uint64_t left_bytes = 0;
  for (const ProcessGroup& group : summary.groups) {
    if (group.only_ran() && !each_process) continue;
    if (each_process || shown < kMostGroups) {
      text += group_line(group, each_process);
      ++shown;
      continue;
    }
    left_processes += group.processes;
    left_bytes += group.copied_bytes.value_or(0);
  }
  if (left_processes > 0)
    text +=
        row(fmt::format("  and {} more", left_processes), "", mebibytes(left_bytes) + " MiB", "");
  return each_process ? text : text + executed_line(summary);
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
    if (shown == most || (share.of_all < kLeastShare && share.remark.empty())) continue;
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

// What is new, and by which code.
std::string new_lines(const Summary& summary, std::size_t most_places) {
  return share_lines("NEW", summary.new_causes, kMostPlaces,
                     [](const Share& share) { return printable(share.name); }) +
         share_lines("CODE", summary.new_sites, most_places, [](const Share& share) {
           const bool is_long = live::columns_of(share.name) > kNameWidth;
           return is_long ? without_arguments(share.name) : share.name;
         });
}

// What was copied, why, of which objects, by which code, and what to do.
std::string cause_lines(const cow::Measurement& measurement, const Summary& summary,
                        std::size_t most_places) {
  std::string advice = advice_lines(advise(measurement, summary));
  if (summary.is_mostly_new()) return new_lines(summary, most_places) + advice;
  if (summary.is_little) return advice;
  if (!cures_for(measurement, summary).empty())
    advice += titled(advice.empty() ? "TRY" : "",
                     "without an edit: cowtop cure -- COMMAND measures what helps");
  return parent_lines(summary) +
         share_lines("WHAT", summary.mappings, kMostMappings,
                     [](const Share& share) {
                       return printable(share.name) +
                              (share.remark.empty() ? "" : " (" + share.remark + ")");
                     }) +
         share_lines("WHY", summary.causes, kMostCauses,
                     [](const Share& share) {
                       const Cause* known = find_cause(share.name);
                       return printable(share.name) + (known == nullptr || known->in_words.empty()
                                                           ? ""
                                                           : ": " + std::string(known->in_words));
                     }) +
         share_lines("OBJECTS", summary.types, most_places,
                     [](const Share& share) { return printable(share.name); }) +
         share_lines("CODE", summary.sites, most_places,
                     [](const Share& share) {
                       const bool is_long = live::columns_of(share.name) > kNameWidth;
                       return is_long ? without_arguments(share.name) : share.name;
                     }) +
         advice;
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
