#include <algorithm>
#include <cctype>
#include <wchar.h>

#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop::live {
namespace {

constexpr unsigned kAscii = 0x80;

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

// The first character of printable text.
struct Printable {
  std::string_view bytes;
  int columns = 1;
};

Printable first_of(std::string_view text) {
  const auto [code, bytes] = first_character(text);
  // -1: not known to the locale, one column as terminals have it.
  const int columns = code < kAscii ? 1 : ::wcwidth(static_cast<wchar_t>(code));
  return {text.substr(0, std::max<std::size_t>(bytes, 1)), columns < 0 ? 1 : columns};
}

// As much of the text as takes no more columns.
std::string_view beginning(std::string_view text, int columns) {
  std::size_t size = 0;
  while (size < text.size()) {
    const Printable next = first_of(text.substr(size));
    columns -= next.columns;
    if (columns < 0) break;
    size += next.bytes.size();
  }
  return text.substr(0, size);
}

std::string ascii(std::string_view text) {
  std::string result;
  for (const char each : text)
    if (!continues(each)) result += static_cast<unsigned char>(each) < kAscii ? each : '?';
  return result;
}

}  // namespace

int columns_of(std::string_view text) {
  int columns = 0;
  while (!text.empty()) {
    const Printable character = first_of(text);
    columns += character.columns;
    text.remove_prefix(character.bytes.size());
  }
  return columns;
}

std::string fit(std::string_view text, int columns, bool unicode, Align align) {
  std::string shown = unicode ? std::string(text) : ascii(text);
  if (beginning(shown, columns).size() < shown.size()) {
    const char* mark = unicode ? "…" : "~";
    shown = columns > 0 ? std::string(beginning(shown, columns - 1)) + mark : "";
  }
  const std::string filling(static_cast<std::size_t>(std::max(columns - columns_of(shown), 0)),
                            ' ');
  return align == Align::left ? shown + filling : filling + shown;
}

std::vector<std::string> wrap(std::string_view text, int columns) {
  constexpr int kLeast = 8;
  constexpr const char* kIndent = "    ";
  columns = std::max(columns, kLeast);
  std::vector<std::string> lines;
  std::string indent;
  for (;;) {
    std::size_t end = beginning(text, columns - static_cast<int>(indent.size())).size();
    const auto space = end < text.size() ? text.rfind(' ', end) : std::string_view::npos;
    if (space != std::string_view::npos && space > 0) end = space;
    const auto last = text.substr(0, end).find_last_not_of(' ');
    lines.push_back(indent + std::string(text.substr(0, last + 1)));
    text.remove_prefix(end);
    while (!text.empty() && text[0] == ' ') text.remove_prefix(1);
    if (text.empty()) return lines;
    indent = kIndent;
  }
}

bool contains(std::string_view text, std::string_view part) {
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  return std::search(text.begin(), text.end(), part.begin(), part.end(),
                     [&](char a, char b) { return lower(a) == lower(b); }) != text.end();
}

}  // namespace cowshed::cowtop::live
