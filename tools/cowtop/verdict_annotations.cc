#include <algorithm>
#include <fmt/format.h>
#include <string_view>

#include <cowshed/tools/cowtop/printable.h>
#include <cowshed/tools/cowtop/verdict_annotations.h>
#include <cowshed/tools/cowtop/verdict_text.h>

namespace cowshed::cowtop {
namespace {

std::string percent_escaped(std::string_view text, std::string_view special) {
  std::string result;
  for (const char c : text) {
    result += special.find(c) == std::string_view::npos
                  ? std::string(1, c)
                  : fmt::format("%{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
  }
  return result;
}

std::string message(std::string_view text) { return percent_escaped(printable(text), "%"); }
std::string property(std::string_view text) { return percent_escaped(text, "%\r\n:,"); }

// As the compiler was called in a build folder inside the repository: "../../src/a.cc".
std::string_view in_repository(std::string_view file) {
  while (file.starts_with("../")) file.remove_prefix(3);
  return file;
}

}  // namespace

std::string verdict_annotations(const Verdict& verdict, Severity severity) {
  // GitHub shows no more than 10 of a step.
  constexpr std::size_t kMost = 10;
  const char* command = severity == Severity::error ? "error" : "warning";
  std::string text;
  std::size_t count = 0;
  for (const Held& held : verdict.held) {
    if (!held.is_over() || ++count > kMost) continue;
    text += fmt::format("::{} title=cowtop check", command);
    const auto place = std::find_if(held.culprits.begin(), held.culprits.end(),
                                    [](const Culprit& culprit) { return !culprit.file.empty(); });
    if (place != held.culprits.end()) {
      text += fmt::format(",file={},line={}", property(in_repository(place->file)), place->line);
    }
    text += fmt::format("::{}\n", message(subject_text(held) + ": " + used_text(held)));
  }
  for (const std::string& why : verdict.not_measured) {
    text += fmt::format("::{} title=cowtop check::not measured: {}\n", command, message(why));
  }
  return text;
}

}  // namespace cowshed::cowtop
