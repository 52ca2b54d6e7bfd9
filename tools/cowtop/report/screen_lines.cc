#include <algorithm>
#include <cctype>

#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/report/screen_lines.h>
#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
std::vector<std::string> wrapped(const std::string& text, int columns) {
  std::vector<std::string> lines = live::wrap(text, columns);
  for (std::string& line : lines) line = breakable(std::move(line));
  return lines;
}

std::string lines_of(const std::string& text) {
  std::string result;
  for (const std::string& line : wrapped(text, kColumns)) result += line + "\n";
  return result;
}

std::string name_of(const ProcessGroup& group) { return printable(group.comm); }

std::uint64_t mean_copied(const ProcessGroup& group) {
  return group.copied_bytes.value_or(0) / std::max<std::uint64_t>(group.processes, 1);
}

std::string copied_each(const ProcessGroup& group) {
  if (group.is_alike()) return mib(mean_copied(group));
  return mib_range(group.least_copied, group.most_copied);
}

std::string own_each(const ProcessGroup& group) {
  if (group.own.are_alike()) return mib(group.own.most);
  return mib_range(group.own.least, group.own.most, 0);
}

std::string shared_each(const ProcessGroup& group) {
  if (group.shares_alike()) return mib(group.shared_bytes);
  return mib_range(group.least_shared, *group.shared_bytes, 0);
}

std::string without_arguments(const std::string& name) {
  const auto module = name.ends_with(')') ? name.rfind(" (") : name.npos;
  std::string text;
  int depth = 0;
  for (const char each : name.substr(0, module)) {
    // "<anonymous>" and "(lambda)", as interpreters name code, are names.
    const bool can_have_arguments =
        !text.empty() &&
        (std::isalnum(static_cast<unsigned char>(text.back())) || text.back() == '_');
    if ((each == '(' || each == '<') && (depth > 0 || can_have_arguments)) ++depth;
    if (depth == 0) text += each;
    if ((each == ')' || each == '>') && depth > 0) --depth;
  }
  if (depth != 0 || text.empty()) return name;  // operator<, say
  return module == name.npos ? text : text + name.substr(module);
}

}  // namespace cowshed::cowtop
