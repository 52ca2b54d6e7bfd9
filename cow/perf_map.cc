#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>

#include <cowshed/cow/perf_map.h>

namespace cowshed::cow {
namespace {

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

PerfMap PerfMap::read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return parse(std::string(std::istreambuf_iterator<char>(file), {}));
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
    code.name = line;
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
