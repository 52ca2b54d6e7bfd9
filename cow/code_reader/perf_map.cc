#include <algorithm>
#include <charconv>
#include <iterator>
#include <sys/stat.h>
#include <unistd.h>

#include <cowshed/cow/code_reader/perf_map.h>

namespace cowshed::cow {
namespace {

constexpr std::int64_t kMostReadBytes = 64 << 20;
constexpr std::size_t kLongestSymbol = 1024;

// Takes a hexadecimal number and the blank after it off the front of `line`.
bool take_number(std::string_view& line, std::uint64_t& value) {
  const char* end = line.data() + line.size();
  if (line.starts_with("0x")) line.remove_prefix(2);
  const auto parsed = std::from_chars(line.data(), end, value, 16);
  if (parsed.ec != std::errc() || parsed.ptr == end || *parsed.ptr != ' ') return false;
  line.remove_prefix(static_cast<std::size_t>(parsed.ptr - line.data()) + 1);
  return true;
}

}  // namespace

PerfMap PerfMap::read(int fd) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return {};
  std::string text(static_cast<std::size_t>(std::min<std::int64_t>(status.st_size, kMostReadBytes)),
                   '\0');
  const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return parse(text);
}

PerfMap PerfMap::parse(std::string_view text) {
  PerfMap map;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    std::uint64_t start = 0;
    Code code;
    if (!take_number(line, start) || !take_number(line, code.bytes) || line.empty()) continue;
    code.name = line.substr(0, kLongestSymbol);
    map.code_[start] = std::move(code);
  }
  return map;
}

std::string PerfMap::function(std::uint64_t address) const {
  const auto after = code_.upper_bound(address);
  if (after == code_.begin()) return {};
  const auto& [start, code] = *std::prev(after);
  return address - start < code.bytes ? code.name : std::string();
}

}  // namespace cowshed::cow
