#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <pthread.h>
#include <utility>

#include <cowshed/share/settle/mappings.h>

namespace cowshed::settling {
namespace {

constexpr std::string_view kSettled = "cowshed-settled:";
constexpr std::array<std::pair<SettledKind, std::string_view>, 4> kKinds = {{
    {SettledKind::main_heap, "main-heap"},
    {SettledKind::thread_heap, "thread-heap"},
    {SettledKind::large_blocks, "large-blocks"},
    {SettledKind::named, "named"},
}};

std::uint64_t number(std::string_view text, int base) {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, base);
  return value;
}

// Removes the next word from `line`, and returns it.
std::string_view take_word(std::string_view& line) {
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  const std::string_view word = line.substr(0, line.find(' '));
  line.remove_prefix(word.size());
  return word;
}

// The letters of VmFlags (proc(5)) that show what a move would break.
constexpr std::array<std::pair<std::string_view, const char*>, 14> kObstacles = {{
    {"lo", "is locked (mlock)"},
    {"dc", "is not inherited by children (MADV_DONTFORK)"},
    {"wf", "is cleared in children (MADV_WIPEONFORK)"},
    {"gd", "is a stack (MAP_GROWSDOWN)"},
    {"ss", "is a shadow stack"},
    {"ht", "is in huge pages of hugetlbfs"},
    {"um", "is watched by userfaultfd"},
    {"uw", "is watched by userfaultfd"},
    {"ui", "is watched by userfaultfd"},
    {"sl", "is sealed (mseal)"},
    {"dd", "is left out of core dumps (MADV_DONTDUMP)"},
    {"mg", "is merged by KSM (MADV_MERGEABLE)"},
    {"io", "belongs to a device"},
    {"pf", "belongs to a device"},
}};

void note_flags(std::string_view flags, Mapping& mapping) {
  while (!flags.empty()) {
    const std::string_view flag = take_word(flags);
    if (flag == "nr") mapping.no_reserve = true;
    for (const auto& [letters, obstacle] : kObstacles)
      if (flag == letters && mapping.obstacle.empty()) mapping.obstacle = obstacle;
  }
}

// A line "Key:    12 kB", and others.
void note_field(std::string_view line, Mapping& mapping) {
  const std::string_view key = line.substr(0, line.find(':'));
  line.remove_prefix(std::min(key.size() + 1, line.size()));
  if (key == "VmFlags") return note_flags(line, mapping);
  const auto value = static_cast<std::size_t>(number(take_word(line), 10));
  if (key == "Rss") mapping.resident = value * 1024;
  if (key == "Anonymous" || key == "Swap" || key == "Private_Hugetlb") mapping.own += value * 1024;
  if (key == "ProtectionKey" && value != 0) mapping.obstacle = "has a protection key";
}

}  // namespace

bool is_header(std::string_view line) {
  return line.find('-') < line.find(' ') && line.find(':') > line.find(' ');
}

MapsLine parse_maps_line(std::string_view line) {
  MapsLine parsed;
  const std::string_view range = take_word(line);
  const std::size_t dash = range.find('-');
  parsed.range = {number(range.substr(0, dash), 16), number(range.substr(dash + 1), 16)};
  parsed.permissions = take_word(line);
  take_word(line);  // offset
  take_word(line);  // device
  parsed.is_anonymous = take_word(line) == "0";
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  parsed.name = line;
  return parsed;
}

std::string memfd_name(SettledKind kind) {
  return std::string(kSettled).append(kKinds[static_cast<std::size_t>(kind)].second);
}

Expected<Mappings> private_mappings(std::pmr::memory_resource* memory) {
  std::ifstream file("/proc/self/smaps");
  if (!file) return system_error("settle: /proc/self/smaps", errno);
  return parse_smaps(file, memory);
}

Mappings parse_smaps(std::istream& smaps, std::pmr::memory_resource* memory) {
  Mappings mappings(memory);
  bool is_wanted = false;
  std::uintptr_t listed = 0;  // up to this address
  for (std::string line; std::getline(smaps, line);) {
    if (!is_header(line)) {
      if (is_wanted) note_field(line, mappings.back());
      continue;
    }
    MapsLine parsed = parse_maps_line(line);
    // The kernel lists a mapping again if it grows between two reads.  A page that is moved twice
    // is lost, because the second move finds no private page.
    parsed.range.begin = std::max(parsed.range.begin, listed);
    listed = std::max(listed, parsed.range.end);
    is_wanted = parsed.is_private_and_writable() && parsed.range.begin < parsed.range.end;
    if (!is_wanted) continue;
    Mapping& mapping = mappings.emplace_back();
    mapping.range = parsed.range;
    mapping.name = parsed.name;
    mapping.is_anonymous = parsed.is_anonymous;
    if (mapping.name == "[stack]") mapping.obstacle = "is a stack";
    std::string_view name = parsed.name;
    constexpr std::string_view kMemfd = "/memfd:";
    if (!name.starts_with(kMemfd)) continue;
    name.remove_prefix(kMemfd.size());
    for (const auto& [kind, kind_name] : kKinds) {
      if (name != memfd_name(kind) + " (deleted)") continue;
      mapping.is_settled = true;
      mapping.settled_as = kind;
    }
  }
  return mappings;
}

Range variables_of_this_thread() {
  const auto thread = static_cast<std::uintptr_t>(pthread_self());
  const auto error = reinterpret_cast<std::uintptr_t>(&errno);
  return {std::min(thread, error), std::max(thread, error)};
}

std::size_t status_bytes(std::string_view key) {
  std::size_t bytes = 0;
  std::array<char, 8192> buffer;
  visit_lines("/proc/self/status", buffer, [&](std::string_view line) {
    if (!line.starts_with(key) || line.substr(key.size(), 1) != ":") return;
    line.remove_prefix(key.size() + 1);
    if (const auto digit = line.find_first_of("0123456789"); digit != line.npos)
      bytes = number(line.substr(digit), 10) * 1024;
  });
  return bytes;
}

}  // namespace cowshed::settling
