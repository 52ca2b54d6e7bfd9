#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <string_view>
#include <unistd.h>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/memory_limits.h>

namespace cowshed::internal {
namespace {

using Text = std::array<char, 8192>;

bool read_file(const std::string& path, Text& text) noexcept {
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return false;
  const ssize_t size = read(file.get(), text.data(), text.size() - 1);
  text[size < 0 ? 0 : static_cast<std::size_t>(size)] = '\0';
  return size > 0;
}

// No limit is "max" in v2, and the largest multiple of a page in v1.
std::size_t number(const Text& text) noexcept {
  return text[0] == 'm' ? MemoryLimits::kUnlimited : std::strtoull(text.data(), nullptr, 10);
}

std::size_t field(const Text& text, std::string_view key) noexcept {
  for (const char* line = text.data(); line != nullptr && *line != '\0';) {
    if (std::strncmp(line, key.data(), key.size()) == 0 && line[key.size()] == ' ')
      return std::strtoull(line + key.size(), nullptr, 10);
    line = std::strchr(line, '\n');
    line = line == nullptr ? nullptr : line + 1;
  }
  return 0;
}

// This process's group: "4:memory:/path" for v1, "0::/path" for v2.
std::string own_group(const std::string& process, bool v1) {
  std::ifstream file(process + "/cgroup");
  for (std::string line; std::getline(file, line);) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (v1 ? controllers.find(",memory,") != std::string::npos : controllers == ",,")
      return line.substr(second + 1);
  }
  return {};
}

struct Mount {
  std::string root;   // which group is mounted
  std::string point;  // where
};

// A space, for example, is written as \040.
std::string unescaped(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      result += static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

bool lies_below(const std::string& group, const std::string& root) {
  return root == "/" ||
         (group.starts_with(root) && (group.size() == root.size() || group[root.size()] == '/'));
}

// The hierarchy may be mounted several times, each in part.  Returns the first mount that shows the
// group, or else the first one.
Mount find_mount(const std::string& process, const std::string& group, bool v1) {
  std::ifstream file(process + "/mountinfo");
  Mount first;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string skipped, type, source, options;
    Mount mount;
    words >> skipped >> skipped >> skipped >> mount.root >> mount.point;
    while (words >> skipped && skipped != "-") {
    }
    words >> type >> source >> options;
    const bool memory = ("," + options + ",").find(",memory,") != std::string::npos;
    if (v1 ? type == "cgroup" && memory : type == "cgroup2") {
      mount = {unescaped(mount.root), unescaped(mount.point)};
      if (lies_below(group, mount.root)) return mount;
      if (first.point.empty()) first = mount;
    }
  }
  return first;
}

}  // namespace

MemoryLimits MemoryLimits::of_process(const std::string& process, const std::string& mounts) {
  MemoryLimits limits;
  for (const bool v1 : {true, false}) {
    const std::string group = own_group(process, v1);
    const Mount mount = find_mount(mounts, group, v1);
    if (group.empty() || mount.point.empty()) continue;
    // In a container the mount may show only a part of the hierarchy.
    std::string path = mount.point;
    if (lies_below(group, mount.root))
      path += mount.root == "/" ? group : group.substr(mount.root.size());
    while (path.size() > mount.point.size() && path.back() == '/') path.pop_back();
    while (path.size() >= mount.point.size()) {
      limits.groups_.push_back({path + (v1 ? "/memory.limit_in_bytes" : "/memory.max"),
                                path + (v1 ? "/memory.usage_in_bytes" : "/memory.current"),
                                path + "/memory.stat", v1});
      path.resize(path.rfind('/'));
    }
  }
  return limits;
}

std::size_t MemoryLimits::headroom() const noexcept {
  std::size_t least = kUnlimited;
  for (const Group& group : groups_) {
    Text text;
    if (!read_file(group.limit, text)) continue;
    const std::size_t limit = number(text);
    if (limit >= kUnlimited / 4 || !read_file(group.usage, text)) continue;
    std::size_t usage = number(text);
    if (read_file(group.stat, text)) {
      const std::size_t cache = field(text, group.v1 ? "total_inactive_file" : "inactive_file") +
                                field(text, group.v1 ? "total_active_file" : "active_file");
      usage -= std::min(usage, cache);
    }
    least = std::min(least, limit - std::min(limit, usage));
  }
  return least;
}

std::size_t available_memory() noexcept {
  Text text;
  if (!read_file("/proc/meminfo", text)) return MemoryLimits::kUnlimited;
  const std::size_t kilobytes = field(text, "MemAvailable:") + field(text, "SwapFree:");
  return kilobytes == 0 ? MemoryLimits::kUnlimited : kilobytes * 1024;
}

}  // namespace cowshed::internal
