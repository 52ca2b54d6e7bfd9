#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <string_view>

#include <cowshed/tools/cowtop/cure/outputs.h>

namespace cowshed::cowtop {
namespace {

// A line's shape is the line with each number, hexadecimal too, and the blanks beside it as one
// sign: a table's columns are padded.
struct Line {
  std::string_view text;
  std::string shape;
  std::vector<std::string> numbers;
};

Line line_of(std::string_view text) {
  Line line{text, {}, {}};
  const auto is_blank = [&](std::size_t at) { return at < text.size() && text[at] == ' '; };
  for (std::size_t i = 0; i < text.size();) {
    const auto is_of_number = [&](std::size_t at) {
      return at < text.size() && std::isxdigit(static_cast<unsigned char>(text[at])) != 0;
    };
    std::size_t end = i;
    bool has_digit = false;
    while (is_of_number(end)) {
      has_digit = has_digit || std::isdigit(static_cast<unsigned char>(text[end])) != 0;
      ++end;
    }
    if (has_digit) {
      line.numbers.emplace_back(text.substr(i, end - i));
      while (line.shape.ends_with("  ")) line.shape.pop_back();
      line.shape += '#';
      if (is_blank(end)) line.shape += ' ';
      while (is_blank(end)) ++end;
    } else {
      end = std::max(end, i + 1);
      line.shape += text.substr(i, end - i);
    }
    i = end;
  }
  return line;
}

std::vector<Line> lines_of(std::string_view text) {
  std::vector<Line> lines;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    lines.push_back(line_of(line));
  }
  return lines;
}

using Numbers = std::multiset<std::string>;  // of all lines of a shape, at one place in it

// The lines of one shape.
struct Alike {
  std::size_t lines = 0;
  std::vector<Numbers> places;
};

using Shapes = std::map<std::string, Alike>;

Shapes shapes_of(const std::vector<Line>& lines) {
  Shapes shapes;
  for (const Line& line : lines) {
    Alike& alike = shapes[line.shape];
    ++alike.lines;
    alike.places.resize(line.numbers.size());
    for (std::size_t i = 0; i < line.numbers.size(); ++i) alike.places[i].insert(line.numbers[i]);
  }
  return shapes;
}

// One stream of the runs of the command as it is.
class Usual {
 public:
  explicit Usual(const std::vector<std::string_view>& texts)
      : texts_(texts), first_(shapes_of(lines_of(texts.front()))) {
    for (const auto& [shape, alike] : first_) varies_[shape].resize(alike.places.size());
    for (const std::string_view each : texts) {
      const Shapes other = shapes_of(lines_of(each));
      for (const auto& [shape, alike] : other)
        if (!first_.contains(shape)) unstable_.insert(shape);
      for (const auto& [shape, alike] : first_) {
        const auto found = other.find(shape);
        if (found == other.end() || found->second.lines != alike.lines) {
          unstable_.insert(shape);
          continue;
        }
        for (std::size_t i = 0; i < alike.places.size(); ++i)
          if (found->second.places[i] != alike.places[i]) varies_[shape][i] = true;
      }
    }
  }

  Likeness likeness(std::string_view text) const {
    if (std::ranges::find(texts_, text) != texts_.end()) return Likeness::same;
    const Shapes shapes = shapes_of(lines_of(text));
    bool has_other_numbers = false;
    for (const auto& [shape, alike] : first_) {
      if (unstable_.contains(shape)) continue;
      const auto found = shapes.find(shape);
      if (found == shapes.end() || found->second.lines != alike.lines) return Likeness::differs;
      for (std::size_t i = 0; i < alike.places.size(); ++i)
        if (!varies_.at(shape)[i] && found->second.places[i] != alike.places[i])
          has_other_numbers = true;
    }
    if (!unstable_.empty()) return Likeness::unstable;
    if (shapes.size() != first_.size()) return Likeness::differs;
    if (has_other_numbers) return Likeness::numbers;
    const bool is_always_one =
        std::ranges::all_of(texts_, [&](std::string_view each) { return each == texts_.front(); });
    return is_always_one ? Likeness::reordered : Likeness::same;
  }

  std::optional<Difference> difference(std::string_view text) const {
    std::vector<Line> before = lines_of(texts_.front());
    std::vector<Line> after = lines_of(text);
    const std::vector<Line> all_before = before;
    const std::vector<Line> all_after = after;
    remove_common(before, after);
    if (before.empty() && after.empty()) {  // other places
      const auto [one, other] = std::ranges::mismatch(
          all_before, all_after, {}, [&](const Line& each) { return key_of(each); },
          [&](const Line& each) { return key_of(each); });
      if (one == all_before.end() || other == all_after.end()) return std::nullopt;
      return Difference{"output", std::string(one->text), std::string(other->text)};
    }
    Difference found;
    if (!before.empty()) found.as_it_is = before.front().text;
    const auto alike = before.empty()
                           ? after.begin()
                           : std::ranges::find(after, before.front().shape, &Line::shape);
    if (alike != after.end()) found.cured = alike->text;
    else if (!after.empty()) found.cured = after.front().text;
    return found;
  }

 private:
  // The line without the numbers that vary.
  std::string key_of(const Line& line) const {
    std::string key = line.shape;
    const auto varies = varies_.find(line.shape);
    for (std::size_t i = 0; i < line.numbers.size(); ++i)
      key += varies != varies_.end() && varies->second[i] ? "\n" : "\n" + line.numbers[i];
    return key;
  }

  void remove_common(std::vector<Line>& before, std::vector<Line>& after) const {
    std::multiset<std::string> ours;
    std::multiset<std::string> theirs;
    for (const Line& each : before) ours.insert(key_of(each));
    for (const Line& each : after) theirs.insert(key_of(each));
    const auto remove = [&](std::vector<Line>& lines, std::multiset<std::string> others) {
      std::erase_if(lines, [&](const Line& each) {
        const auto found = others.find(key_of(each));
        if (found == others.end()) return false;
        others.erase(found);
        return true;
      });
    };
    remove(before, theirs);
    remove(after, ours);
  }

  std::vector<std::string_view> texts_;
  Shapes first_;
  std::set<std::string> unstable_;                   // shapes that not all have as often
  std::map<std::string, std::vector<bool>> varies_;  // by place
};

Usual usual(const std::vector<Outcome>& runs, std::string Outcome::* stream) {
  std::vector<std::string_view> texts;
  for (const Outcome& each : runs) texts.emplace_back(each.*stream);
  return Usual(texts);
}

}  // namespace

Likeness likeness(const std::vector<Outcome>& as_it_is, const Outcome& other) {
  if (std::ranges::find(as_it_is, other.status, &Outcome::status) == as_it_is.end())
    return Likeness::differs;
  return std::max(usual(as_it_is, &Outcome::output).likeness(other.output),
                  usual(as_it_is, &Outcome::error).likeness(other.error));
}

std::optional<Difference> first_difference(const std::vector<Outcome>& as_it_is,
                                           const Outcome& other) {
  const auto in_output = usual(as_it_is, &Outcome::output);
  if (in_output.likeness(other.output) != Likeness::same) return in_output.difference(other.output);
  const auto in_error = usual(as_it_is, &Outcome::error);
  if (in_error.likeness(other.error) == Likeness::same) return std::nullopt;
  auto found = in_error.difference(other.error);
  if (found) found->stream = "error";
  return found;
}

}  // namespace cowshed::cowtop
