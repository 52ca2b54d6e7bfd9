#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <iostream>

#include <cowshed/tests/programs/measured_run.h>
#include <cowshed/tests/support/taskstats.h>

namespace cowshed::test {
namespace {

// What chance may add to the share of a process's samples, or take from it.
double noise(const Json& process, double share) {
  constexpr double kDeviations = 5;
  const auto samples = process.at("samples").get<double>();
  const double p = std::clamp(share, 0.0, 1.0);
  return kDeviations * std::sqrt(std::max(p * (1 - p), 1 / samples) / samples);
}

std::string place(const Json& frame) {
  const std::string module = frame.at("module");
  std::string text = frame.at("function");
  if (text.empty()) text = "??";
  return text + " (" + module.substr(module.rfind('/') + 1) + ")";
}

std::vector<std::string> names(const Json& items, const char* field, std::size_t most) {
  std::vector<std::string> names;
  for (const Json& each : items) {
    if (names.size() < most) names.push_back(each.at(field));
  }
  return names;
}

}  // namespace

const Json& MeasuredRun::process(pid_t pid) const {
  static const Json none;
  if (!report.is_object()) return none;
  for (const Json& process : report.at("processes")) {
    if (process.at("pid") == pid) return process;
  }
  return none;
}

pid_t MeasuredRun::child() const {
  pid_t pid = 0;
  if (!report.is_object()) return pid;
  for (const Json& process : report.at("processes")) {
    if (process.at("role") != "root") pid = process.at("pid");
  }
  return pid;
}

double MeasuredRun::copies(pid_t pid) const {
  const auto found = independent.find(pid);
  return found == independent.end() ? 0 : static_cast<double>(found->second);
}

// taskstats counts anonymous copies, writes over the zero page, and those copies of files' pages
// that were read before.
void expect_agreement(const MeasuredRun& run) {
  // See ExitAccounts.
  constexpr std::int64_t kAfterItsAccount = 2;
  ASSERT_TRUE(run.report.is_object());
  for (const Json& process : run.report.at("processes")) {
    const auto found = run.independent.find(process.at("pid"));
    ASSERT_NE(found, run.independent.end()) << "taskstats says nothing of " << process.at("pid");
    const auto independent = static_cast<std::int64_t>(found->second);
    const auto least = process.at("copied_anon_pages").get<std::int64_t>() +
                       process.at("zero_page_writes").get<std::int64_t>();
    EXPECT_LE(least, independent + most_unseen(found->second) + kAfterItsAccount) << process;
    // The command is measured from a moment after its fork, which a sanitizer fills.
    if (process.at("role") == "root") continue;
    EXPECT_GE(least + process.at("copied_file_pages").get<std::int64_t>(), independent) << process;
  }
}

double share(const Json& process, const std::string& pattern) {
  for (const Json& each : process.at("patterns")) {
    if (each.at("pattern") == pattern) return each.at("share");
  }
  return 0;
}

void expect_share(const Json& process, const std::string& pattern, double least, double most) {
  const double found = share(process, pattern);
  EXPECT_GE(found, least - noise(process, least)) << pattern << ' ' << process.at("patterns");
  EXPECT_LE(found, most + noise(process, most)) << pattern << ' ' << process.at("patterns");
}

void expect_copies(const Json& site, const Json& process, double least, double most) {
  const double all = process.at("copied_pages");
  const double found = site.at("estimated_copies");
  EXPECT_GE(found, least - all * noise(process, least / all)) << site;
  EXPECT_LE(found, most + all * noise(process, most / all)) << site;
}

bool calls(const Json& site, const std::string& function) {
  const Json& stack = site.at("stack");
  return std::any_of(stack.begin(), stack.end(), [&](const Json& frame) {
    return frame.at("function").get<std::string>() == function;
  });
}

std::vector<std::string> places(const Json& process, std::size_t most) {
  std::vector<std::string> places;
  for (const Json& site : process.at("sites")) {
    if (places.size() == most) break;
    const Json& stack = site.at("stack");
    const auto inner = static_cast<std::ptrdiff_t>(site.at("frames").size()) - 1;
    const auto named = std::find_if(stack.begin() + inner, stack.end(), [](const Json& frame) {
      return !frame.at("function").get<std::string>().empty();
    });
    places.push_back(place(named == stack.end() ? *(stack.begin() + inner) : *named));
  }
  return places;
}

std::vector<std::string> mappings(const Json& process, std::size_t most) {
  return names(process.at("mappings"), "name", most);
}

std::vector<std::string> patterns(const Json& process) {
  return names(process.at("patterns"), "pattern", SIZE_MAX);
}

void show(const std::string& name, const MeasuredRun& run, pid_t pid) {
  const Json& ours = run.process(pid);
  std::cout << name << ": copied " << ours.at("copied_anon_pages") << " + zero page "
            << ours.at("zero_page_writes") << " + files " << ours.at("copied_file_pages")
            << "; taskstats " << run.copies(pid) << '\n';
  for (std::size_t i = 0; i < std::min<std::size_t>(3, ours.at("sites").size()); ++i) {
    const Json& site = ours.at("sites").at(i);
    std::cout << "  site " << site.at("estimated_copies") << ' ' << places(ours, 3).at(i) << ": ";
    for (std::size_t k = 0; k < std::min<std::size_t>(4, site.at("stack").size()); ++k) {
      std::cout << (k == 0 ? "" : " < ") << place(site.at("stack").at(k));
    }
    std::cout << '\n';
  }
  for (std::size_t i = 0; i < std::min<std::size_t>(3, ours.at("mappings").size()); ++i) {
    const Json& mapping = ours.at("mappings").at(i);
    std::cout << "  mapping " << mapping.at("estimated_copies") << ' ' << mapping.at("name")
              << '\n';
  }
  for (const Json& pattern : ours.at("patterns")) {
    std::cout << "  pattern " << pattern.at("share") << ' ' << pattern.at("pattern") << ": "
              << pattern.at("evidence") << '\n';
  }
}

}  // namespace cowshed::test
