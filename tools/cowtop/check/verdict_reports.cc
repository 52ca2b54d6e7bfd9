#include <algorithm>
#include <array>
#include <filesystem>
#include <fmt/format.h>
#include <map>
#include <pugixml.hpp>
#include <sstream>
#include <string_view>
#include <utility>

#include <cowshed/tools/cowtop/check/verdict_reports.h>
#include <cowshed/tools/cowtop/recording/json_fields.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

std::string size_text(std::uint64_t bytes) {
  constexpr double kStep = 1024;
  constexpr std::array<const char*, 4> kUnits = {"B", "KiB", "MiB", "GiB"};
  std::size_t unit = 0;
  double value = static_cast<double>(bytes);
  for (; value >= kStep && unit + 1 < kUnits.size(); ++unit) value /= kStep;
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 1, kUnits.at(unit));
}

std::string percent_text(std::uint64_t bytes, std::uint64_t of_bytes) {
  return percent(static_cast<double>(bytes) / std::max(static_cast<double>(of_bytes), 1.0));
}

// Returns both sizes as texts that differ if the sizes differ.
std::pair<std::string, std::string> size_texts(std::uint64_t limit, std::uint64_t used) {
  std::pair texts = {size_text(limit), size_text(used)};
  if (texts.first == texts.second && limit != used)
    texts = {fmt::format("{} B", limit), fmt::format("{} B", used)};
  return texts;
}

std::string culprit_text(const Finding& culprit) {
  const std::string size = (culprit.is_estimate ? "~" : "") + size_text(culprit.bytes);
  const bool is_quoted =
      culprit.kind == FindingKind::object || culprit.kind == FindingKind::mapping;
  if (!is_quoted) return culprit.subject + " " + size;
  return fmt::format("{} '{}' {}", kind_of(culprit), culprit.subject, size);
}

// Returns the used part of the limit; -1: unknown.
double use(const Held& held) {
  if (!held.used_bytes) return -1;
  return static_cast<double>(*held.used_bytes) /
         std::max(static_cast<double>(held.limit_bytes), 1.0);
}

std::string percent_escaped(std::string_view text, std::string_view special) {
  std::string result;
  for (const char c : text) {
    result += special.find(c) == std::string_view::npos
                  ? std::string(1, c)
                  : fmt::format("%{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
  }
  return result;
}

std::string message(std::string_view text) { return percent_escaped(printable(text), "%"); }
std::string property(std::string_view text) { return percent_escaped(printable(text), "%:,"); }

// Removes the "../../" of a path that is relative to a build folder inside the repository, and the
// folder of the repository, in which a job of GitHub runs, from an absolute one.
std::string in_repository(std::string_view file) {
  std::error_code error;
  const std::string folder = std::filesystem::current_path(error).string() + "/";
  if (!error && file.starts_with(folder)) file.remove_prefix(folder.size());
  while (file.starts_with("../")) file.remove_prefix(3);
  return std::string(file);
}

Json json_of(const Finding& culprit) {
  Json object = {{"kind", kind_of(culprit)},
                 {"name", culprit.subject},
                 {"bytes", culprit.bytes},
                 {"estimated", culprit.is_estimate}};
  if (!culprit.file.empty()) {
    object["file"] = culprit.file;
    object["line"] = culprit.line;
  }
  return object;
}

Json json_of(const Held& held) {
  Json object = {{"limit", name_of(held.limit)}, {"over", held.is_over()}};
  if (held.limit == Limit::object) object["object"] = held.object;
  if (held.pid) {
    object["pid"] = *held.pid;
    object["comm"] = held.comm;
    object["child"] = held.number;
  }
  object["limit_bytes"] = held.limit_bytes;
  object["used_bytes"] = or_null(held.used_bytes);
  if (!held.used_bytes) object["not_known"] = held.why_not_known;
  if (held.limit == Limit::ratio || held.limit == Limit::growth) object["of_bytes"] = held.of_bytes;
  object["culprits"] = Json::array();
  for (const Finding& culprit : held.culprits) object["culprits"].push_back(json_of(culprit));
  return object;
}

// Replaces the characters that XML cannot contain: control characters, U+FFFE and U+FFFF.
std::string xml_text(const std::string& any) {
  std::string text = printable(any);
  for (const std::string not_a_character : {"\xef\xbf\xbe", "\xef\xbf\xbf"}) {
    for (auto at = text.find(not_a_character); at != std::string::npos;
         at = text.find(not_a_character)) {
      text.replace(at, not_a_character.size(), "?");
    }
  }
  return text;
}

class Suite {
 public:
  Suite(const Verdict& verdict, Severity severity) : severity_(severity) {
    suite_ = document_.append_child("testsuites").append_child("testsuite");
    suite_.append_attribute("name") = "cowtop check";
    for (const Held& held : verdict.held)
      if (!held.only_ran || held.is_over()) add(held);
    for (const std::string& why : verdict.not_measured)
      add_bad(why.substr(0, why.find(':')), "error", errors_, why);
    suite_.append_attribute("tests") = tests_;
    suite_.append_attribute("failures") = failures_;
    suite_.append_attribute("errors") = errors_;
    suite_.append_attribute("skipped") = skipped_;
    if (verdict.notes.empty()) return;
    std::string notes;
    for (const std::string& note : verdict.notes) notes += xml_text(note) + "\n";
    suite_.append_child("system-err").text() = notes.c_str();
  }

  std::string text() const {
    std::ostringstream stream;
    document_.save(stream, "  ", pugi::format_default, pugi::encoding_utf8);
    return stream.str();
  }

 private:
  void add(const Held& held) {
    std::string name(name_of(held.limit));
    if (held.limit == Limit::object) name += " '" + held.object + "'";
    name += !held.pid          ? ": tree"
            : held.number == 0 ? fmt::format(": root ({})", held.comm)
            : held.only_ran    ? fmt::format(": program {} ({})", held.number, held.comm)
                               : fmt::format(": child {} ({})", held.number, held.comm);
    if (!held.used_bytes) {
      ++skipped_;
      add_case(name, "skipped", used_text(held));
    } else if (held.is_over()) {
      add_bad(name, "failure", failures_, subject_text(held) + ": " + used_text(held));
    } else {
      add_case(name);
    }
  }

  pugi::xml_node add_case(const std::string& name) {
    ++tests_;
    pugi::xml_node test = suite_.append_child("testcase");
    test.append_attribute("classname") = "cowtop.check";
    test.append_attribute("name") = xml_text(name).c_str();
    return test;
  }
  void add_case(const std::string& name, const char* outcome, const std::string& message) {
    add_case(name).append_child(outcome).append_attribute("message") = xml_text(message).c_str();
  }
  void add_bad(const std::string& name, const char* outcome, unsigned& count,
               const std::string& message) {
    if (severity_ == Severity::warning) {
      add_case(name).append_child("system-out").text() = xml_text(message).c_str();
      return;
    }
    ++count;
    add_case(name, outcome, message);
  }

  Severity severity_;
  pugi::xml_document document_;
  pugi::xml_node suite_;
  unsigned tests_ = 0;
  unsigned failures_ = 0;
  unsigned errors_ = 0;
  unsigned skipped_ = 0;
};

}  // namespace

std::string_view name_of(Limit limit) {
  constexpr std::array kNames = {"max_copied", "max_ratio", "max_new",   "max_own",
                                 "max_alike",  "object",    "max_growth"};
  return kNames.at(static_cast<std::size_t>(limit));
}

std::string subject_text(const Held& held) {
  const std::string who = !held.pid ? "tree"
                                    : fmt::format("{} {} ({})", held.number == 0 ? "root" : "child",
                                                  *held.pid, printable(held.comm));
  return held.limit == Limit::object ? fmt::format("object '{}' in {}", printable(held.object), who)
                                     : who;
}

std::string used_text(const Held& held) {
  if (!held.used_bytes) return "not known: " + held.why_not_known;
  const auto [limit, used] = size_texts(held.limit_bytes, *held.used_bytes);
  const char* of = held.limit == Limit::fresh   ? " of new memory"
                   : held.limit == Limit::own   ? " of its own"
                   : held.limit == Limit::alike ? " alike"
                                                : "";
  std::string text = fmt::format("limited to {}{}, used {}", limit, of, used);
  if (held.limit == Limit::ratio) {
    text = fmt::format("limited to {} ({}) of the {} shared at {}, used {} ({})",
                       percent_text(held.limit_bytes, held.of_bytes), limit,
                       size_text(held.of_bytes), held.pid ? "its fork" : "the forks",
                       percent_text(*held.used_bytes, held.of_bytes), used);
  } else if (held.limit == Limit::growth) {
    text = fmt::format("limited to {}, {} in the baseline, used {}", limit,
                       size_text(held.of_bytes), used);
  }
  const char* separator = "; culprits: ";
  for (const Finding& culprit : held.culprits)
    text += std::exchange(separator, ", ") + culprit_text(culprit);
  return text;
}

std::vector<std::string> over_lines(const Verdict& verdict) {
  constexpr std::size_t kMost = 20;
  std::vector<const Held*> over;
  for (const Held& held : verdict.held)
    if (held.is_over()) over.push_back(&held);
  std::ranges::stable_sort(over, std::greater<>(), [](const Held* held) { return use(*held); });
  std::vector<std::string> lines;
  for (const Held* held : over) {
    if (lines.size() == kMost) break;
    lines.push_back(subject_text(*held) + ": " + used_text(*held));
  }
  if (over.size() > kMost) lines.push_back(fmt::format("{} more", over.size() - kMost));
  return lines;
}

std::string within_line(const Verdict& verdict) {
  std::map<std::pair<Limit, std::string>, const Held*> nearest;
  for (const Held& held : verdict.held) {
    const Held*& of_limit = nearest[{held.limit, held.object}];
    if (of_limit == nullptr || use(held) > use(*of_limit)) of_limit = &held;
  }
  std::string line;
  for (const auto& [limit, held] : nearest)
    line += (line.empty() ? "" : "; ") + subject_text(*held) + ": " + used_text(*held);
  return line;
}

std::string verdict_annotations(const Verdict& verdict, Severity severity) {
  // GitHub shows at most 10 annotations of a step.
  constexpr std::size_t kMost = 10;
  const char* command = severity == Severity::error ? "error" : "warning";
  std::string text;
  std::size_t count = 0;
  for (const Held& held : verdict.held) {
    if (!held.is_over() || ++count > kMost) continue;
    text += fmt::format("::{} title=cowtop check", command);
    const auto place = std::ranges::find_if(
        held.culprits, [](const Finding& culprit) { return !culprit.file.empty(); });
    if (place != held.culprits.end())
      text += fmt::format(",file={},line={}", property(in_repository(place->file)), place->line);
    text += fmt::format("::{}\n", message(subject_text(held) + ": " + used_text(held)));
  }
  for (const std::string& why : verdict.not_measured)
    text += fmt::format("::{} title=cowtop check::not measured: {}\n", command, message(why));
  return text;
}

std::string verdict_json(const Verdict& verdict) {
  Json report = {{"schema", "cowshed.check/1"},
                 {"verdict", verdict.is_over()              ? "over"
                             : verdict.not_measured.empty() ? "within"
                                                            : "not_measured"},
                 {"held", Json::array()},
                 {"not_measured", verdict.not_measured},
                 {"notes", verdict.notes}};
  for (const Held& held : verdict.held) report["held"].push_back(json_of(held));
  return text_of(report);
}

std::string verdict_junit(const Verdict& verdict, Severity severity) {
  return Suite(verdict, severity).text();
}

}  // namespace cowshed::cowtop
