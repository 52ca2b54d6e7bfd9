#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <cowshed/share/accounting/readable_type.h>

namespace cowshed::internal {
namespace {

// Template arguments that are defaults, or only name an allocator.
constexpr std::array<std::string_view, 9> kDefaults = {"allocator",
                                                       "pmr::polymorphic_allocator",
                                                       "cowshed::ArenaAllocator",
                                                       "char_traits",
                                                       "default_delete",
                                                       "equal_to",
                                                       "greater",
                                                       "hash",
                                                       "less"};
// Parts of compilers' names that people do not need.
constexpr std::array<std::string_view, 7> kLeftOut = {
    "std::",       "__cxx11::", "__1::", "{anonymous}::", "(anonymous namespace)::",
    "<unnamed>::", "class "};
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kBetterNames = {{
    {"basic_string<char>", "string"},
    {"basic_string<wchar_t>", "wstring"},
    {"basic_string<char16_t>", "u16string"},
    {"basic_string<char32_t>", "u32string"},
    {"basic_string_view<char>", "string_view"},
    {"long unsigned int", "unsigned long"},
    {"long int", "long"},
}};

bool ends_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_'; }

std::string without_noise(std::string_view name) {
  std::string text(name);
  for (const std::string_view noise : kLeftOut) {
    for (std::size_t at = 0; (at = text.find(noise, at)) != std::string::npos;)
      if (at == 0 || ends_word(text[at - 1])) text.erase(at, noise.size());
      else ++at;
  }
  return text;
}

bool is_default(std::string_view argument) {
  constexpr std::string_view kDynamicExtent = "18446744073709551615";
  return argument == kDynamicExtent || std::ranges::any_of(kDefaults, [&](std::string_view each) {
           return argument.starts_with(each) && argument.substr(each.size()).starts_with('<');
         });
}

using Parsed = std::optional<std::string>;  // none: the brackets do not match
Parsed parse_arguments(std::string_view& rest);

// Parses NAME and NAME<ARGUMENT, ...>REST, up to the comma or bracket that ends it.
Parsed parse_type(std::string_view& rest) {
  std::string result;
  while (!rest.empty() && rest[0] != ',' && rest[0] != '>') {
    const bool opens = rest[0] == '<';
    if (!opens) result += rest[0];
    rest.remove_prefix(1);
    if (!opens) continue;
    const auto inside = parse_arguments(rest);
    if (!inside) return std::nullopt;
    result += *inside;
  }
  while (!result.empty() && result.back() == ' ') result.pop_back();
  for (const auto& [name, better] : kBetterNames)
    if (result == name) return std::string(better);
  return result;
}

Parsed parse_arguments(std::string_view& rest) {
  std::string result = "<";
  for (bool first = true;; first = false) {
    while (rest.starts_with(' ')) rest.remove_prefix(1);
    const auto argument = parse_type(rest);
    if (!argument || rest.empty()) return std::nullopt;
    if (first || !is_default(*argument)) result += (first ? "" : ", ") + *argument;
    const bool closes = rest[0] == '>';
    rest.remove_prefix(1);
    if (closes) return result + ">";
  }
}

}  // namespace

std::string readable_type(std::string_view compiler_name) {
  const std::string text = without_noise(compiler_name);
  std::string_view rest = text;
  const Parsed parsed = parse_type(rest);
  return rest.empty() && parsed ? *parsed : std::string(compiler_name);
}

}  // namespace cowshed::internal
