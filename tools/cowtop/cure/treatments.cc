#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/summary.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/cure/treatments.h>
#include <cowshed/tools/cowtop/recording/json_fields.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

constexpr auto kLeast = static_cast<double>(kLeastBytes);

template <class Function>
Interval interval_of(const std::vector<Trial>& trials, const Function& of) {
  Interval interval = of(trials.front());
  for (const Trial& each : trials) {
    const Interval one = of(each);
    interval = {std::min(interval.least, one.least), std::max(interval.most, one.most)};
  }
  return interval;
}

Interval at(double value) { return {value, value}; }

// Less by a part of it, and by more than both vary.
bool is_less(const Interval& one, const Interval& other, double part) {
  return other.least - one.most >= std::max(part * other.least, kLeast);
}

bool forks_quicker(const Treatment& one, const Treatment& other) {
  const auto longest = one.longest_fork_ms();
  const auto before = other.longest_fork_ms();
  return longest && before && before->least >= kLongForkMs &&
         longest->most <= kHalfOfAll * before->least;
}

bool saves(const Treatment& as_it_is, const Treatment& cured) {
  const Interval before = as_it_is.peak_bytes();
  const Interval after = cured.peak_bytes();
  if (as_it_is.is_peak_bounded() && cured.is_peak_bounded() && is_less(after, before, kHelpsFrom))
    return true;
  const auto copied_before = as_it_is.copied_bytes();
  const auto copied_after = cured.copied_bytes();
  return (copied_before && copied_after && after.least <= before.most * (1 + kRestOfAll) &&
          is_less(*copied_after, *copied_before, kMuchOfAll)) ||
         (after.least <= before.most * (1 + kHelpsFrom) && forks_quicker(cured, as_it_is));
}

// Whether the second is to be preferred, although it comes later.
bool is_better(const Treatment& one, const Treatment& later, double peak) {
  const Interval peak_of_one = one.peak_bytes();
  const Interval peak_later = later.peak_bytes();
  const bool may_be_alike =
      !one.is_peak_bounded() || !later.is_peak_bounded() ||
      (peak_of_one.least <= peak_later.most && peak_later.least <= peak_of_one.most);
  const double less = may_be_alike ? 0 : peak_of_one.middle() - peak_later.middle();
  if (std::abs(less) > std::max(kRestOfAll * peak, kLeast)) return less > 0;
  const auto copied = one.copied_bytes();
  const auto copied_later = later.copied_bytes();
  const double less_copied = copied && copied_later ? copied->middle() - copied_later->middle() : 0;
  if (copied && std::abs(less_copied) > std::max(kAlikeWithin * copied->middle(), kLeast))
    return less_copied > 0;
  return forks_quicker(later, one);
}

// $'\011', as bash, ksh and zsh know it.
std::string escaped(std::string_view word) {
  std::string text = "$'";
  while (!word.empty()) {
    const auto [code, bytes] = first_character(word);
    const std::size_t length = std::max<std::size_t>(bytes, 1);
    for (const char each : word.substr(0, length))
      if (bytes == 0 || !is_printable(code))
        text += fmt::format("\\{:03o}", static_cast<unsigned char>(each));
      else text += each == '\'' || each == '\\' ? std::string{'\\', each} : std::string(1, each);
    word.remove_prefix(length);
  }
  return text + "'";
}

std::string quoted(const std::string& word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  if (!word.empty() && word.find_first_not_of(kPlain) == word.npos) return word;
  if (printable_lines(word) != word) return escaped(word);
  std::string text = "'";
  for (const char each : word) text += each == '\'' ? R"('\'')" : std::string(1, each);
  return text + "'";
}

std::string figure(const Interval& interval, double unit, int digits) {
  const std::string half =
      fmt::format("±{:.{}f}", (interval.most - interval.least) / 2 / unit, digits);
  return fmt::format("{:.{}f}{}", interval.middle() / unit, digits,
                     half.find_first_not_of("±0.") == half.npos ? "" : half);
}

std::string name_of(const Treatment& treatment) {
  return treatment.cure ? treatment.cure->name : "as it is";
}

std::string status_text(int status) {
  return status > kSignalBase ? signal_name(status - kSignalBase) : fmt::format("exit {}", status);
}

const char* word_of(Likeness likeness) {
  switch (likeness) {
    case Likeness::same: return "same";
    case Likeness::numbers: return "numbers";
    case Likeness::unstable: return "unstable";
    case Likeness::reordered:
    case Likeness::differs: return "differs";
  }
  return "";
}

std::string likeness_text(const Treatments& all, const Treatment& treatment) {
  const int status = treatment.trials.back().outcome.status;
  if (status != all.as_it_is.trials.front().outcome.status || !treatment.cure)
    return status_text(status);
  return word_of(treatment.likeness);
}

constexpr int kNameColumns = 20;
constexpr int kTableColumns = 80;

std::string row(std::string_view name, std::string_view peak, std::string_view copied,
                std::string_view more, std::string_view fork, std::string_view time,
                std::string_view output) {
  return fmt::format("  {} {:>11} {:>9} {:>7} {:>8} {:>7}  {}\n",
                     live::fit(name, kNameColumns, true), peak, copied, more, fork, time, output);
}

std::string row(const Treatments& all, const Treatment& treatment) {
  constexpr int kOne = 1;
  const auto copied = treatment.copied_bytes();
  const auto fork = treatment.longest_fork_ms();
  return row(name_of(treatment),
             treatment.is_peak_bounded()
                 ? figure(treatment.peak_bytes(), kMiB, kOne)
                 : fmt::format("≥ {:.1f}", treatment.peak_bytes().least / kMiB),
             copied ? figure(*copied, kMiB, kOne) : kUnknown,
             figure(treatment.new_bytes(), kMiB, kOne), fork ? figure(*fork, 1, kOne) : kUnknown,
             figure(treatment.seconds(), 1, kOne), likeness_text(all, treatment));
}

std::string wrapped_lines(const std::string& text) {
  std::string lines;
  for (const std::string& line : live::wrap(text, kTableColumns)) lines += line + "\n";
  return lines;
}

std::string less_text(const Treatment& as_it_is, const Treatment& cured) {
  constexpr double kWhole = 100;
  const double before = as_it_is.peak_bytes().middle();
  const double less = before - cured.peak_bytes().middle();
  std::string text;
  if (less >= kLeast && as_it_is.is_peak_bounded() && cured.is_peak_bounded())
    text =
        fmt::format("{:.1f} MiB less at the peak ({:.0f}%)", less / kMiB, kWhole * less / before);
  const auto copied_before = as_it_is.copied_bytes();
  const auto copied = cured.copied_bytes();
  const double less_copied =
      copied_before && copied ? copied_before->middle() - copied->middle() : 0;
  if (less_copied >= kLeast)
    text += fmt::format("{}{:.1f} MiB less copied", text.empty() ? "" : ", ", less_copied / kMiB);
  if (forks_quicker(cured, as_it_is))
    text += fmt::format("{}the longest fork takes {:.1f} ms, not {:.1f}", text.empty() ? "" : ", ",
                        cured.longest_fork_ms()->middle(), as_it_is.longest_fork_ms()->middle());
  return text;
}

std::string in_service_text(const Treatment& treatment) {
  const auto bytes = treatment.in_service_bytes();
  if (!bytes) return "";
  return wrapped_lines(fmt::format("{}: {} MiB until workers began to end; the peak came then",
                                   name_of(treatment), figure(*bytes, kMiB, 1)));
}

std::string difference_text(const Treatment& treatment) {
  if (!treatment.difference) return "";
  const auto line = [](const char* whose, const std::optional<std::string>& text) {
    const std::string shown = text ? printable(*text) : "(no such line)";
    return fmt::format("  {:<10}{}\n", whose,
                       live::columns_of(shown) > kTableColumns - 12
                           ? live::fit(shown, kTableColumns - 12, true)
                           : shown);
  };
  return fmt::format("{}, the first line of its {} that differs:\n", name_of(treatment),
                     treatment.difference->stream) +
         line("as it is", treatment.difference->as_it_is) +
         line("with it", treatment.difference->cured) + "\n";
}

std::string what_helps(const Treatments& treatments) {
  if (treatments.is_stopped) return "No remedy was tried: --keep-going goes on.\n";
  if (const Treatment* best = best_of(treatments))
    return wrapped_lines("Best: " + best->cure->name + ", " +
                         less_text(treatments.as_it_is, *best) +
                         (best->likeness == Likeness::numbers ? "; numbers differ" : "")) +
           "  " + command_line(*best->cure, treatments.command) + "\n";
  std::string text;
  for (const Treatment& each : treatments.cured) {
    if (!saves(treatments.as_it_is, each)) continue;
    text += wrapped_lines(
        fmt::format("{} takes {}, but {}", each.cure->name, less_text(treatments.as_it_is, each),
                    each.likeness == Likeness::unstable
                        ? "what the command writes varies, so it cannot be compared"
                        : "what the command writes differs"));
  }
  if (!treatments.cured.empty()) return text + "None helps.\n";
  if (!treatments.not_tried.empty()) return text;
  if (const auto copied = treatments.as_it_is.copied_bytes(); copied && copied->most < kLeast)
    return "It copies hardly anything.\n";
  return wrapped_lines(
      "No remedy without an edit fits the copies.  cowtop -- COMMAND shows the code that makes "
      "them.");
}

Json json_of(const Interval& interval) {
  return {{"least", interval.least}, {"most", interval.most}};
}

Json json_of(const std::optional<Interval>& interval) {
  return interval ? json_of(*interval) : Json(nullptr);
}

Json json_of(const Difference& difference) {
  const auto line = [](const std::optional<std::string>& text) {
    constexpr std::size_t kMost = 1000;
    return text ? Json(text->substr(0, kMost)) : Json(nullptr);
  };
  return {{"stream", difference.stream},
          {"as_it_is", line(difference.as_it_is)},
          {"cured", line(difference.cured)}};
}

Json json_of(const Treatment& treatment, const std::vector<std::string>& command) {
  Json object = Json::object();
  if (treatment.cure) {
    object["remedy"] = treatment.cure->name;
    object["keep"] = command_line(*treatment.cure, command);
    object["output"] = word_of(treatment.likeness);
    if (treatment.difference) object["difference"] = json_of(*treatment.difference);
  }
  object["runs"] = treatment.trials.size();
  object["exit_status"] = treatment.trials.back().outcome.status;
  object["peak_pss_bytes"] = json_of(treatment.peak_bytes());
  if (!treatment.is_peak_bounded()) object["peak_pss_bytes"]["most"] = nullptr;
  object["in_service_bytes"] = json_of(treatment.in_service_bytes());
  object["copied_bytes"] = json_of(treatment.copied_bytes());
  object["new_bytes"] = json_of(treatment.new_bytes());
  object["longest_fork_ms"] = json_of(treatment.longest_fork_ms());
  object["seconds"] = json_of(treatment.seconds());
  if (!treatment.remark.empty()) object["remark"] = treatment.remark;
  return object;
}

}  // namespace

Interval Treatment::peak_bytes() const {
  return interval_of(trials, [](const Trial& each) -> Interval {
    if (!each.measurement->memory) return {};
    const auto least = static_cast<double>(each.measurement->memory->peak_pss_bytes);
    return {least,
            std::max(least, static_cast<double>(summarize(*each.measurement).most_peak_bytes))};
  });
}

bool Treatment::is_peak_bounded() const {
  return std::ranges::all_of(trials, [](const Trial& each) {
    return !each.measurement->memory || summarize(*each.measurement).is_peak_bounded;
  });
}

std::optional<Interval> Treatment::in_service_bytes() const {
  for (const Trial& each : trials)
    if (!each.in_service_bytes) return std::nullopt;
  return interval_of(
      trials, [](const Trial& each) { return at(static_cast<double>(*each.in_service_bytes)); });
}

std::optional<Interval> Treatment::copied_bytes() const {
  for (const Trial& each : trials)
    if (!summarize(*each.measurement).is_all_known) return std::nullopt;
  return interval_of(trials, [](const Trial& each) {
    return at(static_cast<double>(summarize(*each.measurement).copied_bytes));
  });
}

Interval Treatment::new_bytes() const {
  return interval_of(trials, [](const Trial& each) {
    return at(static_cast<double>(summarize(*each.measurement).new_bytes));
  });
}

std::optional<Interval> Treatment::longest_fork_ms() const {
  const auto longest_of = [](const Trial& trial) {
    std::uint64_t longest = 0;
    for (const cow::ProcessCopies& process : trial.measurement->processes)
      if (process.fork_costs) longest = std::max(longest, process.fork_costs->longest_ns);
    return longest;
  };
  for (const Trial& each : trials)
    if (longest_of(each) == 0) return std::nullopt;
  constexpr double kNsOfMs = 1e6;
  return interval_of(trials, [&](const Trial& each) {
    return at(static_cast<double>(longest_of(each)) / kNsOfMs);
  });
}

Interval Treatment::seconds() const {
  return interval_of(trials, [](const Trial& each) { return at(each.measurement->duration_s); });
}

const Treatment* best_of(const Treatments& treatments) {
  const Treatment* best = nullptr;
  const double peak = treatments.as_it_is.peak_bytes().middle();
  for (const Treatment& each : treatments.cured) {
    const bool is_like = each.likeness == Likeness::same || each.likeness == Likeness::numbers;
    if (!is_like || !saves(treatments.as_it_is, each)) continue;
    if (best == nullptr || is_better(*best, each, peak)) best = &each;
  }
  return best;
}

std::string shell_line(const Cure& cure, const std::vector<std::string>& command) {
  std::string text;
  const auto add = [&](const std::string& word) { text += (text.empty() ? "" : " ") + word; };
  for (const auto& [name, value] : cure.environment) add(name + "=" + quoted(value));
  for (const std::string& word : cure.prefix) add(quoted(word));
  for (const std::string& word : command) add(quoted(word));
  return text;
}

std::string command_line(const Cure& cure, const std::vector<std::string>& command) {
  return cure.files.empty() ? shell_line(cure, command) : cure.for_good;
}

std::string cure_table(const Treatments& treatments) {
  std::string text = row("REMEDY", "PSS, MiB", "COPIED", "NEW", "FORK, ms", "TIME, s", "OUTPUT") +
                     row(treatments, treatments.as_it_is);
  for (const Treatment& each : treatments.cured) text += row(treatments, each);
  text += "\n" + in_service_text(treatments.as_it_is);
  for (const Treatment& each : treatments.cured)
    text += in_service_text(each) + difference_text(each);
  if (!treatments.left_behind.empty())
    text += wrapped_lines(
        fmt::format("The first run left {}.", fmt::join(treatments.left_behind, ", ")));
  for (const Treatment& each : treatments.cured)
    if (!each.remark.empty()) text += wrapped_lines(each.cure->name + ": " + each.remark);
  for (const NotTried& each : treatments.not_tried)
    text += wrapped_lines(each.name + " was not tried: " + each.why);
  return printable_lines(text + what_helps(treatments));
}

std::string cure_json(const Treatments& treatments) {
  const Treatment* best = best_of(treatments);
  Json report = {{"schema", "cowshed.cure/1"},
                 {"command", treatments.command},
                 {"as_it_is", json_of(treatments.as_it_is, treatments.command)},
                 {"remedies", Json::array()},
                 {"not_tried", Json::array()},
                 {"left_behind", treatments.left_behind},
                 {"stopped", treatments.is_stopped},
                 {"findings", findings_json(*treatments.as_it_is.trials.front().measurement)},
                 {"best", best == nullptr ? Json(nullptr) : Json(best->cure->name)}};
  for (const Treatment& each : treatments.cured)
    report["remedies"].push_back(json_of(each, treatments.command));
  for (const NotTried& each : treatments.not_tried)
    report["not_tried"].push_back({{"remedy", each.name}, {"why", each.why}});
  return text_of(report);
}

}  // namespace cowshed::cowtop
