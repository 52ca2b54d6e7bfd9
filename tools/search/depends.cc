#include <cowshed/tools/search/depends.h>

namespace cowshed::search {
namespace {

// Cuts the text at the first separator: returns what is before it, leaves what is after.
std::string_view take_until(std::string_view& rest, char separator) {
  const auto end = rest.find(separator);
  const std::string_view part = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return part;
}

std::string_view name_in(std::string_view alternative) {
  const auto begin = alternative.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) {
    return {};
  }
  alternative.remove_prefix(begin);
  return alternative.substr(0, alternative.find_first_of(" \t\r\n(:[<"));
}

}  // namespace

void for_each_dependency(std::string_view field,
                         const std::function<bool(std::string_view)>& exists,
                         const std::function<void(std::string_view)>& add) {
  while (!field.empty()) {
    std::string_view alternatives = take_until(field, ',');
    while (!alternatives.empty()) {
      const std::string_view name = name_in(take_until(alternatives, '|'));
      if (!name.empty() && exists(name)) {
        add(name);
        break;
      }
    }
  }
}

}  // namespace cowshed::search
