#include <algorithm>
#include <limits>

#include <cowshed/cow/code_reader/python_lines.h>

// Objects/locations.md of CPython describes the table.  The first byte of an entry, and no other,
// has its highest bit set.
namespace cowshed::cow {
namespace {

constexpr std::uint8_t kFirstByte = 0x80;

enum Kind : std::uint8_t { one_line = 10, no_columns = 13, long_form = 14 };

class TableReader {
 public:
  explicit TableReader(std::span<const std::uint8_t> table) : rest_(table) {}

  // Returns the first byte of the next entry; 0: the table ends.
  std::uint8_t next() {
    const auto first = std::ranges::find_if(rest_, is_first);
    rest_ = {first, rest_.end()};
    if (rest_.empty()) return 0;
    const std::uint8_t byte = rest_.front();
    rest_ = rest_.subspan(1);
    return byte;
  }

  // Returns a number of six bits a byte, the lowest first, whose lowest bit is its sign.
  std::int64_t signed_number() {
    constexpr unsigned kBits = 6;
    constexpr unsigned kMostBits = 36;
    constexpr std::uint8_t kMore = 1U << kBits;
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < kMostBits; shift += kBits) {
      if (rest_.empty() || is_first(rest_.front())) break;
      const std::uint8_t byte = rest_.front();
      rest_ = rest_.subspan(1);
      value |= std::uint64_t{byte & (kMore - 1U)} << shift;
      if ((byte & kMore) == 0) break;
    }
    const auto size = static_cast<std::int64_t>(value >> 1U);
    return (value & 1U) != 0 ? -size : size;
  }

 private:
  static bool is_first(std::uint8_t byte) { return (byte & kFirstByte) != 0; }

  std::span<const std::uint8_t> rest_;
};

std::int64_t line_delta(unsigned kind, TableReader& table) {
  if (kind >= one_line && kind < no_columns) return kind - one_line;
  return kind == no_columns || kind == long_form ? table.signed_number() : 0;
}

std::int32_t valid_line(std::int64_t line) {
  const bool is_valid = line > 0 && line <= std::numeric_limits<std::int32_t>::max();
  return is_valid ? static_cast<std::int32_t>(line) : 0;
}

}  // namespace

std::vector<PythonLine> parse_python_lines(int first_line, std::span<const std::uint8_t> table) {
  constexpr unsigned kKindShift = 3;
  constexpr unsigned kKindMask = 15;
  constexpr unsigned kLengthMask = 7;
  std::vector<PythonLine> lines;
  TableReader reader(table);
  std::int64_t line = first_line;
  std::uint32_t instruction = 0;
  while (const std::uint8_t first = reader.next()) {
    if (lines.size() + 1 == kMostPythonLines) break;
    line += line_delta(first >> kKindShift & kKindMask, reader);
    const std::int32_t here = valid_line(line);
    if (lines.empty() || lines.back().line != here) lines.push_back({instruction, here});
    instruction += (first & kLengthMask) + 1U;
  }
  lines.push_back({instruction, 0});
  return lines;
}

std::size_t line_index(const std::vector<PythonLine>& lines, std::uint32_t instruction) {
  const auto after = std::ranges::upper_bound(lines, instruction, {}, &PythonLine::instruction);
  return after == lines.begin() ? 0 : static_cast<std::size_t>(after - lines.begin()) - 1;
}

}  // namespace cowshed::cow
