#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <cowshed/share/accounting/readable_type.h>

namespace cowshed {
namespace {

// Template arguments that say nothing: they are the defaults, or only say where.
constexpr std::array<std::string_view, 9> kDefaults = {"allocator",
                                                       "pmr::polymorphic_allocator",
                                                       "cowshed::ArenaAllocator",
                                                       "char_traits",
                                                       "default_delete",
                                                       "equal_to",
                                                       "greater",
                                                       "hash",
                                                       "less"};
// In the names that compilers give, of no interest to people.
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

// Reads NAME and NAME<ARGUMENT, ...>REST up to the comma or bracket that ends it.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  // Nothing: brackets do not match.
  std::optional<std::string> all() {
    auto result = type();
    return at_ == text_.size() ? result : std::nullopt;
  }

 private:
  std::optional<std::string> type() {
    std::string result;
    while (at_ < text_.size() && text_[at_] != ',' && text_[at_] != '>') {
      if (text_[at_] != '<') {
        result += text_[at_++];
        continue;
      }
      ++at_;
      const auto inside = arguments();
      if (!inside) return std::nullopt;
      result += *inside;
    }
    while (!result.empty() && result.back() == ' ') result.pop_back();
    for (const auto& [name, better] : kBetterNames)
      if (result == name) return std::string(better);
    return result;
  }

  std::optional<std::string> arguments() {
    std::string result = "<";
    for (bool first = true;; first = false) {
      while (at_ < text_.size() && text_[at_] == ' ') ++at_;
      const auto argument = type();
      if (!argument || at_ == text_.size()) return std::nullopt;
      if (first || !is_default(*argument)) result += (first ? "" : ", ") + *argument;
      if (text_[at_++] == '>') return result + ">";
    }
  }

  static bool is_default(std::string_view argument) {
    return std::any_of(kDefaults.begin(), kDefaults.end(), [&](std::string_view each) {
      return argument.starts_with(each) && argument.substr(each.size()).starts_with('<');
    });
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

std::string readable_type(std::string_view compiler_name) {
  const std::string text = without_noise(compiler_name);
  return Reader(text).all().value_or(std::string(compiler_name));
}

}  // namespace cowshed
