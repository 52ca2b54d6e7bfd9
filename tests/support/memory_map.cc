#include <cowshed/tests/support/memory_map.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {
namespace {

std::uintptr_t number(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

// A line of /proc/self/maps or the first of a mapping's in smaps.
bool parse(const std::string& line, Mapping& mapping) {
  Mapping read{};
  std::array<char, 8> permissions{};
  int name_at = 0;
  if (std::sscanf(line.c_str(), "%zx-%zx %7s %*s %*s %lu %n", &read.begin, &read.end,
                  permissions.data(), &read.inode, &name_at) != 4) {
    return false;
  }
  mapping = {read.begin, read.end, permissions.data(), read.inode,
             line.substr(static_cast<std::size_t>(name_at))};
  return true;
}

}  // namespace

std::vector<Mapping> all_mappings() {
  std::vector<Mapping> all;
  std::ifstream file("/proc/self/maps");
  for (std::string line; std::getline(file, line);) parse(line, all.emplace_back());
  return all;
}

Mapping mapping_at(const void* address) {
  for (const Mapping& mapping : all_mappings())
    if (number(address) >= mapping.begin && number(address) < mapping.end) return mapping;
  return {};
}

long page_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

std::size_t smaps_kib(const std::string& field, const void* begin, std::size_t size) {
  std::ifstream file("/proc/self/smaps");
  std::size_t total = 0;
  Mapping mapping{};
  for (std::string line; std::getline(file, line);) {
    if (!parse(line, mapping) && line.starts_with(field + ":") &&
        mapping.begin < number(begin) + size && number(begin) < mapping.end) {
      total += std::stoul(line.substr(field.size() + 1));
    }
  }
  return total;
}

std::size_t own_pages(const void* begin, std::size_t size) {
  constexpr std::uint64_t kPresent = std::uint64_t{1} << 63U;
  constexpr std::uint64_t kOfFile = std::uint64_t{1} << 61U;
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  std::size_t count = 0;
  std::array<std::uint64_t, 4096> entries{};
  for (std::size_t page = 0; page < size / 4096; page += entries.size()) {
    const std::size_t wanted = std::min(entries.size(), size / 4096 - page);
    const auto offset = static_cast<off_t>((number(begin) / 4096 + page) * 8);
    const ssize_t got = pread(fd, entries.data(), wanted * 8, offset);
    count += static_cast<std::size_t>(std::count_if(
        entries.begin(), entries.begin() + got / 8,
        [](std::uint64_t entry) { return (entry & kPresent) != 0 && (entry & kOfFile) == 0; }));
  }
  close(fd);
  return count;
}

std::size_t figure_of(const std::string& file, const std::string& key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(key + ":")) return std::stoul(line.substr(key.size() + 1));
  return 0;
}

std::map<int, std::string> descriptors() {
  std::map<int, std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;  // the directory's own
    found[std::stoi(entry.path().filename())] = std::filesystem::read_symlink(entry, gone);
  }
  return found;
}

std::vector<int> descriptors_of(const std::string& target) {
  std::vector<int> found;
  for (const auto& [descriptor, its] : descriptors())
    if (its.starts_with(target)) found.push_back(descriptor);
  return found;
}

}  // namespace cowshed::test
