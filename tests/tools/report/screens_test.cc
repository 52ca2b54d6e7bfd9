#include <fmt/format.h>

#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tests/tools/report/screens.h>
#include <cowshed/tools/cowtop/text/display_width.h>

namespace cowshed::cowtop {
namespace {

Lines printed(const ScreenCase& which) {
  return lines_in(text_report(measurement_of(which), which.form));
}

Lines changes(const Lines& from, const Lines& to) {
  Lines lines;
  const auto change = [&](char sign, std::size_t number, const std::string& text) {
    lines.push_back(text.empty() ? fmt::format("{}{}", sign, number)
                                 : fmt::format("{}{:<3}{}", sign, number, text));
  };
  std::size_t next = 0;  // of `from`
  for (std::size_t i = 0; i <= to.size(); ++i) {
    const std::size_t begin = i;
    auto same = from.end();
    for (; i < to.size(); ++i)
      if (same = std::find(from.begin() + static_cast<std::ptrdiff_t>(next), from.end(), to[i]);
          same != from.end())
        break;
    const auto end = static_cast<std::size_t>(same - from.begin());
    for (std::size_t j = begin; j < i; ++j)
      if (next < end) change('=', ++next, to[j]);
      else change('+', next, to[j]);
    while (next < end) change('-', ++next, "");
    ++next;
  }
  return lines;
}

// As a case writes it.
std::string written_screen(const ScreenCase& which, const Lines& screen) {
  Lines lines;
  for (const std::string& line : screen) lines.push_back(line.empty() ? "|" : "| " + line);
  if (!which.like.empty())
    if (const Lines fewer = changes(printed(screen_named(which.like)), screen);
        fewer.size() < lines.size())
      lines = fewer;
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

void update(const std::filesystem::path& path) {
  std::string text;
  for (const ScreenCase& each : all_screens().at(path)) {
    const bool is_first = &each == &all_screens().at(path)[1];
    if (!each.name.empty() && (each.like.empty() || is_first)) text += "\n";
    text += each.text + (each.name.empty() ? "" : written_screen(each, printed(each)));
  }
  write_file(path, text);
}

class ScreenTest : public ::testing::Test {
 public:
  ScreenTest(const ScreenCase& which, const std::filesystem::path& path)
      : case_(which), path_(path) {}

  void TestBody() override {
    const Lines screen = printed(case_);
    if (std::getenv("UPDATE_SCREENS") != nullptr) update(path_);
    else EXPECT_EQ(written_screen(case_, screen), case_.screen);
    if (case_.form.each_process || case_.form.wide) return;
    EXPECT_LE(screen.size(), 23U);
    for (const std::string& line : screen) EXPECT_LE(live::columns_of(line), 80) << line;
  }

 private:
  const ScreenCase& case_;
  const std::filesystem::path& path_;
};

const bool registered = [] {
  for (const auto& [path, cases] : all_screens()) {
    for (const ScreenCase& each : cases)
      if (!each.name.empty())
        ::testing::RegisterTest(
            path.stem().c_str(), each.name.c_str(), nullptr, nullptr, path.c_str(), 1,
            [&each, &path]() -> ::testing::Test* { return new ScreenTest(each, path); });
  }
  return true;
}();

}  // namespace
}  // namespace cowshed::cowtop
