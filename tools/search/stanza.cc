#include <algorithm>
#include <array>
#include <strings.h>

#include <cowshed/tools/search/stanza.h>

namespace cowshed::search {
namespace {

bool same_name(std::string_view left, std::string_view right) {
  return left.size() == right.size() && strncasecmp(left.data(), right.data(), left.size()) == 0;
}

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

// Whatever is not a package list fails here at its first line.
bool is_field_name(std::string_view name) {
  return !name.empty() && name.front() != '#' && name.front() != '-' &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c <= '~'; });
}

// Some other file, compressed or binary, also has line ends and colons.
bool is_text(std::string_view value) {
  return std::none_of(value.begin(), value.end(), [](char c) {
    return (c >= 0 && c < ' ' && c != '\t' && c != '\n' && c != '\r') || c == '\x7f';
  });
}

}  // namespace

std::string_view Stanza::operator[](std::string_view name) const {
  const auto found = std::find_if(fields_.begin(), fields_.end(),
                                  [&](const Field& field) { return same_name(field.name, name); });
  return found == fields_.end() ? std::string_view() : found->value;
}

tl::unexpected<Error> StanzaReader::error(const std::string& what) const {
  return make_error(ErrorCode::invalid_argument, source_ + ":" + std::to_string(line_) + ": " +
                                                     what + "; `apt-get update` fetches it anew");
}

Expected<std::string_view> StanzaReader::take_line() {
  ++line_;
  const auto end = rest_.find('\n');
  if (end == std::string_view::npos) {
    return error("the list ends in the middle of a line");
  }
  std::string_view line = rest_.substr(0, end);
  rest_.remove_prefix(end + 1);
  if (line.ends_with('\r')) {
    line.remove_suffix(1);
  }
  return line;
}

Expected<void> StanzaReader::add_line(Stanza& stanza, std::string_view line) const {
  auto& fields = stanza.fields_;
  if (!is_text(line)) {
    return error("binary data where a package list should have text");
  }
  if (line.front() == ' ' || line.front() == '\t') {
    if (fields.empty()) {
      return error("a continuation line without a field before it");
    }
    auto& value = fields.back().value;
    const std::string_view more = trim(line);
    // One view over both: they lie one after the other in the text.
    if (!more.empty()) {
      value = {value.data(), static_cast<std::size_t>(more.data() + more.size() - value.data())};
    }
    return {};
  }
  const auto colon = line.find(':');
  if (colon == std::string_view::npos || !is_field_name(line.substr(0, colon))) {
    return error("not a 'Name: value' line of a package list");
  }
  std::string_view value = trim(line.substr(colon + 1));
  if (value.empty()) {
    value = line.substr(colon + 1, 0);
  }
  fields.push_back({line.substr(0, colon), value});
  return {};
}

Expected<bool> StanzaReader::next(Stanza& stanza) {
  stanza.fields_.clear();
  while (!rest_.empty()) {
    const auto line = take_line();
    if (!line) {
      return tl::make_unexpected(line.error());
    }
    const bool blank = trim(*line).empty();
    if (blank && !stanza.fields_.empty()) {
      break;
    }
    if (!blank) {
      if (auto added = add_line(stanza, *line); !added) {
        return tl::make_unexpected(added.error());
      }
    }
  }
  if (stanza.fields_.empty()) {
    return false;
  }
  for (const std::string_view name : {"Package", "Version"}) {
    if (stanza[name].empty()) {
      return error("a record without the field " + std::string(name) + " ends here");
    }
  }
  return true;
}

}  // namespace cowshed::search
