#include <algorithm>
#include <array>
#include <cstdlib>
#include <fmt/format.h>
#include <map>
#include <string_view>

#include <cowshed/tools/cowtop/cure/environment.h>

namespace cowshed::cowtop {
namespace {

std::string_view environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? "" : value;
}

// The settings of a list have names, such as "o" in OCAMLRUNPARAM=o=100.
std::vector<std::string> settings_of(std::string_view list, char separator) {
  std::vector<std::string> names;
  while (!list.empty()) {
    const std::string_view one = list.substr(0, list.find(separator));
    list.remove_prefix(std::min(list.size(), one.size() + 1));
    if (const auto at = one.find('='); at != one.npos) names.emplace_back(one.substr(0, at));
  }
  return names;
}

// What glibc reads by two names.
constexpr std::array<std::pair<const char*, const char*>, 4> kOfMalloc = {{
    {"MALLOC_ARENA_MAX", "glibc.malloc.arena_max"},
    {"MALLOC_MMAP_THRESHOLD_", "glibc.malloc.mmap_threshold"},
    {"MALLOC_TOP_PAD_", "glibc.malloc.top_pad"},
    {"MALLOC_TRIM_THRESHOLD_", "glibc.malloc.trim_threshold"},
}};

// Where the caller sets the same already; "": nowhere.
std::string set_already(const std::string& name, const std::string& value, char separator) {
  const auto tunables = settings_of(environment("GLIBC_TUNABLES"), ':');
  std::vector<std::string> ours;
  if (separator != '\0') ours = settings_of(value, separator);
  for (const auto& [variable, tunable] : kOfMalloc) {
    if (name == variable && std::ranges::find(tunables, tunable) != tunables.end())
      return fmt::format("{} in GLIBC_TUNABLES", tunable);
    if (std::ranges::find(ours, tunable) != ours.end() && !environment(variable).empty())
      return variable;
  }
  if (separator == '\0') return environment(name).empty() ? "" : name;
  for (const std::string& each : settings_of(environment(name), separator))
    if (std::ranges::find(ours, each) != ours.end()) return fmt::format("{} in {}", each, name);
  return "";
}

}  // namespace

std::string keep_environment(Cure& cure) {
  const std::map<std::string, char> lists = {
      {"GLIBC_TUNABLES", ':'}, {"OCAMLRUNPARAM", ','}, {"PHP_INI_SCAN_DIR", ':'}, {"RUBYOPT", ' '}};
  for (auto& [name, value] : cure.environment) {
    const auto list = lists.find(name);
    const char separator = list == lists.end() ? '\0' : list->second;
    if (const std::string where = set_already(name, value, separator); !where.empty())
      return fmt::format("the environment sets {}, and cure leaves that as it is", where);
    if (environment(name).empty()) continue;
    if (!value.starts_with(separator)) value.insert(0, 1, separator);
    value.insert(0, environment(name));
  }
  return "";
}

}  // namespace cowshed::cowtop
