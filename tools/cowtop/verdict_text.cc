#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <map>
#include <utility>

#include <cowshed/tools/cowtop/printable.h>
#include <cowshed/tools/cowtop/verdict_text.h>

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
  constexpr double kWhole = 100;
  const double of = std::max(static_cast<double>(of_bytes), 1.0);
  return fmt::format("{:.1f}%", kWhole * static_cast<double>(bytes) / of);
}

// Two sizes that can be told apart where they differ.
std::pair<std::string, std::string> size_texts(std::uint64_t limit, std::uint64_t used) {
  std::pair texts = {size_text(limit), size_text(used)};
  if (texts.first == texts.second && limit != used) {
    texts = {fmt::format("{} B", limit), fmt::format("{} B", used)};
  }
  return texts;
}

std::string culprit_text(const Culprit& culprit) {
  const std::string size = (culprit.is_estimate ? "~" : "") + size_text(culprit.bytes);
  switch (culprit.kind) {
    case Culprit::Kind::object: return fmt::format("object '{}' {}", culprit.name, size);
    case Culprit::Kind::mapping: return fmt::format("mapping '{}' {}", culprit.name, size);
    case Culprit::Kind::process:
    case Culprit::Kind::site: return culprit.name + " " + size;
  }
  return {};
}

// How much of its limit is used.
double use(const Held& held) {
  if (!held.used_bytes) return -1;
  return static_cast<double>(*held.used_bytes) /
         std::max(static_cast<double>(held.limit_bytes), 1.0);
}

}  // namespace

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
  std::string text = fmt::format("limited to {}, used {}", limit, used);
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
  for (const Culprit& culprit : held.culprits) {
    text += std::exchange(separator, ", ") + culprit_text(culprit);
  }
  return text;
}

std::vector<std::string> over_lines(const Verdict& verdict) {
  constexpr std::size_t kMost = 20;
  std::vector<const Held*> over;
  for (const Held& held : verdict.held) {
    if (held.is_over()) over.push_back(&held);
  }
  std::stable_sort(over.begin(), over.end(),
                   [](const Held* a, const Held* b) { return use(*a) > use(*b); });
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
  for (const auto& [limit, held] : nearest) {
    line += (line.empty() ? "" : "; ") + subject_text(*held) + ": " + used_text(*held);
  }
  return line;
}

}  // namespace cowshed::cowtop
