#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/check/budget.h>
#include <cowshed/tools/cowtop/cli/complain.h>

namespace cowshed::cowtop {

namespace {

constexpr double kMostBytes = 0x1p60;
constexpr double kMostPercent = 1'000'000;

using Unit = std::pair<std::string_view, double>;
constexpr std::array<Unit, 5> kUnits = {
    {{"", 1}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}}};

// Removes a decimal number without a sign or an exponent, and a space, from the front of `text`.
std::optional<double> take_number(std::string_view& text) {
  if (text.empty() || text[0] < '0' || text[0] > '9') return std::nullopt;
  double number = 0;
  const auto parsed =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (parsed.ec != std::errc() || !std::isfinite(number)) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(parsed.ptr - text.data()));
  if (text.starts_with(' ')) text.remove_prefix(1);
  return number;
}

}  // namespace

bool is_unit(std::string_view text) {
  return !text.empty() && std::ranges::find(kUnits, text, &Unit::first) != kUnits.end();
}

Expected<std::uint64_t> parse_size(std::string_view text) {
  std::string_view rest = text;
  const auto number = take_number(rest);
  const auto unit =
      std::ranges::find_if(kUnits, [&](const auto& each) { return each.first == rest; });
  const bool is_size = number && unit != kUnits.end();
  const double bytes = is_size ? *number * unit->second : 0;
  const bool is_whole = !rest.empty() || std::floor(bytes) == bytes;
  if (!is_size || !is_whole || bytes > kMostBytes) {
    return wrong("'" + std::string(text) +
                 "' is not a size: whole bytes, or a number with KiB, MiB, GiB or TiB");
  }
  return static_cast<std::uint64_t>(bytes);
}

Expected<double> parse_percentage(std::string_view text) {
  std::string_view rest = text;
  const auto number = take_number(rest);
  if (!number || rest != "%" || *number > kMostPercent)
    return wrong("'" + std::string(text) + "' is not a percentage as 5%");
  constexpr double kWhole = 100;
  return *number / kWhole;
}

Expected<Budget::Object> parse_object(std::string_view text) {
  const auto separator = text.rfind('=');
  if (separator == std::string_view::npos || separator == 0)
    return wrong("'" + std::string(text) + "' is not NAME=SIZE");
  TRY(const auto bytes, parse_size(text.substr(separator + 1)));
  return Budget::Object{std::string(text.substr(0, separator)), bytes};
}

std::string what_is_wrong_with(const Budget& budget) {
  if (budget.baseline.empty() != !budget.max_growth) {
    return budget.max_growth ? "--max-growth: of what? give --baseline FILE"
                             : "--baseline: how much more? give --max-growth";
  }
  if (!budget.max_copied_bytes && !budget.max_ratio && !budget.max_new_bytes &&
      !budget.max_own_bytes && !budget.max_alike_bytes && budget.objects.empty() &&
      budget.baseline.empty()) {
    return "no limit: give --max-copied, --max-ratio, --max-new, --max-own, --max-alike, "
           "--object, --baseline with --max-growth, or a --budget that has one";
  }
  return {};
}

}  // namespace cowshed::cowtop
