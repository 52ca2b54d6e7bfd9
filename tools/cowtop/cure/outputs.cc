#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <string_view>

#include <cowshed/tools/cowtop/cure/outputs.h>

namespace cowshed::cowtop {
namespace {

using Words = std::multiset<std::string>;  // of all lines of a shape, at one place in it
using Shapes = std::map<std::string, std::vector<Words>>;

// A line's shape is the line with each number, hexadecimal too, as one sign.
Shapes shapes_of(std::string_view text) {
  Shapes shapes;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    std::string shape;
    std::vector<std::string> numbers;
    for (std::size_t i = 0; i < line.size();) {
      const auto is_of_number = [&](std::size_t at) {
        return at < line.size() && std::isxdigit(static_cast<unsigned char>(line[at])) != 0;
      };
      std::size_t end = i;
      bool has_digit = false;
      while (is_of_number(end)) {
        has_digit = has_digit || std::isdigit(static_cast<unsigned char>(line[end])) != 0;
        ++end;
      }
      if (has_digit) {
        numbers.emplace_back(line.substr(i, end - i));
        shape += '#';
      } else {
        end = std::max(end, i + 1);
        shape += line.substr(i, end - i);
      }
      i = end;
    }
    std::vector<Words>& places = shapes[shape];
    places.resize(numbers.size() + 1);
    for (std::size_t i = 0; i < numbers.size(); ++i) places[i].insert(std::move(numbers[i]));
    places.back().insert("");  // counts the lines
  }
  return shapes;
}

bool have_one_form(const Shapes& one, const Shapes& other) {
  return std::ranges::equal(one, other, [](const auto& a, const auto& b) {
    return a.first == b.first && a.second.back().size() == b.second.back().size();
  });
}

Likeness likeness(const std::vector<std::string_view>& as_it_is, std::string_view text) {
  if (std::ranges::find(as_it_is, text) != as_it_is.end()) return Likeness::same;
  const bool is_always_one = std::ranges::all_of(
      as_it_is, [&](std::string_view each) { return each == as_it_is.front(); });
  std::vector<Shapes> usual;
  for (const std::string_view each : as_it_is) usual.push_back(shapes_of(each));
  for (const Shapes& each : usual)
    if (!have_one_form(usual.front(), each)) return Likeness::unknown;
  const Shapes shapes = shapes_of(text);
  if (!have_one_form(usual.front(), shapes)) return Likeness::differs;
  for (const auto& [shape, places] : shapes) {
    for (std::size_t i = 0; i < places.size(); ++i) {
      const Words& first = usual.front().at(shape)[i];
      const bool varies = std::ranges::any_of(
          usual, [&](const Shapes& each) { return each.at(shape)[i] != first; });
      if (!varies && places[i] != first) return Likeness::differs;
    }
  }
  return is_always_one ? Likeness::reordered : Likeness::same;
}

}  // namespace

Likeness likeness(const std::vector<Outcome>& as_it_is, const Outcome& other) {
  std::vector<std::string_view> outputs;
  std::vector<std::string_view> errors;
  bool has_status = false;
  for (const Outcome& each : as_it_is) {
    has_status = has_status || each.status == other.status;
    outputs.emplace_back(each.output);
    errors.emplace_back(each.error);
  }
  if (!has_status) return Likeness::differs;
  const Likeness output = likeness(outputs, other.output);
  const Likeness error = likeness(errors, other.error);
  return std::max(output, error);
}

}  // namespace cowshed::cowtop
