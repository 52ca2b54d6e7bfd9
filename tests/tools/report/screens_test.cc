#include <fmt/format.h>
#include <regex>

#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/report/text_report.h>
#include <cowshed/tools/cowtop/text/display_width.h>

// Each case of tests/tools/report/screens/*.txt is a test: a measurement, and the whole report on
// it, which must fit on a screen.  This command writes the reports as they are now into the files:
//   UPDATE_SCREENS=1 build/check/tests/tools/cowtop_test --gtest_filter='Report*'
//
//   [NAME] [like OTHER] [--all | --wide]  begins a case.  `like`: it begins with OTHER's
//   measurement COMMAND KEY=VALUE...    adds a process.  The first is the root, PID 1; others are
//   its children
//   @PID KEY=VALUE...       changes a process; @* changes all
//   all KEY=VALUE...        changes the measurement
//   code SIZE FRAMES, mapping SIZE NAME, type SIZE NAME, failed ADDRESS REASON: FRAMES
//                           adds a sample; on an indented line, to the process above.  `handled`
//                           is a failed access that the program handled
//   new SIZE[/MOST] CAUSE, new-code SIZE FRAMES   adds a sample of new memory
//   N x LINE                repeats such a line, with 0, 1, ... for {}
//   | TEXT                  is a line of the report
//   =N TEXT, +N TEXT, -N    stand in place of the report if they are fewer lines.  Line N of
//   OTHER's
//                           report changes to TEXT, is followed by TEXT, or is gone
// KEY is a field of `cowtop --json`, such as memory.shared_bytes, or a short name of set_fields().
// VALUE may be in MiB (76M) or seconds (2s); "-" is not known.  A frame is FUNCTION @FILE:LINE
// (MODULE) inlined.  " < " stands before its caller, and "*" before the frame that CODE names.
namespace cowshed::cowtop {
namespace {

using Lines = std::vector<std::string>;

std::uint64_t pages_of(const std::string& size) {
  return static_cast<std::uint64_t>(std::stod(size) * (size.ends_with('M') ? 256 : 1));
}

Json value_of_field(const std::string& key, const std::string& text) {
  if (text == "-") return nullptr;
  if (text.starts_with('"')) return text.substr(1, text.size() - 2);
  if (std::regex_match(text, std::regex("[0-9.]+M")))
    return pages_of(text) * (key.find("pages") == key.npos ? cow::kPageSize : 1);
  if (std::regex_match(text, std::regex("[0-9.]+s")))
    return static_cast<std::uint64_t>(std::stod(text) * 1e9);
  return Json::accept(text) ? Json::parse(text) : Json(text);
}

// "75% program exit, 25% stack"
Json causes_of(const std::string& text) {
  static const std::regex cause("([0-9.]+)% ([^,\"]+)");
  Json causes = Json::array();
  for (std::sregex_iterator each(text.begin(), text.end(), cause), end; each != end; ++each) {
    const double percent = std::stod(each->str(1));
    causes.push_back({{"pattern", each->str(2)},
                      {"share", percent / 100},
                      {"samples", static_cast<std::uint64_t>(percent)}});
  }
  return causes;
}

void set_fields(Json& object, const std::string& fields) {
  static const std::regex field("([^ =]+)=(\"[^\"]*\"|[^ ]*)");
  static const std::map<std::string, Lines> short_names = {
      {"copied", {"copied_anon_pages"}},
      {"file", {"copied_file_pages"}},
      {"shared", {"shared_at_fork_bytes"}},
      {"before_exec", {"copied_pages_before_exec"}},
      {"parent_copied", {"parent_copied_pages"}},
      {"memory", {"memory.shared_bytes", "memory.private_bytes"}},  // memory=1M+2M
      {"new", {"zero_filled_pages", "most_risen_bytes"}}};
  for (std::sregex_iterator each(fields.begin(), fields.end(), field), end; each != end; ++each) {
    const std::string key = each->str(1);
    std::string text = each->str(2);
    if (key == "why") {
      object["patterns"] = causes_of(text);
      continue;
    }
    const auto found = short_names.find(key);
    for (std::string name : found == short_names.end() ? Lines{key} : found->second) {
      const Json value = value_of_field(name, text.substr(0, text.find('+')));
      if (const auto plus = text.find('+'); plus != text.npos) text.erase(0, plus + 1);
      std::ranges::replace(name, '.', '/');
      object[Json::json_pointer("/" + name)] = value;
    }
  }
}

// A stack, and its frames up to the one that CODE names.
Json stack_of(std::string text) {
  static const std::regex frame(R"((\*?)(.*?)(?: @(\S+):(\d+))?(?: \((\S+)\))?( inlined)?)");
  Json stack = Json::array();
  Json::difference_type named = 0;
  for (text += " < "; !text.empty(); text = text.substr(text.find(" < ") + 3)) {
    const std::string each = text.substr(0, text.find(" < "));
    std::smatch parts;
    std::regex_match(each, parts, frame);
    if (parts[1].length() > 0) named = std::ssize(stack);
    stack.push_back({{"function", parts[2] == "??" ? "" : parts.str(2)},
                     {"file", parts.str(3)},
                     {"line", parts[4].matched ? std::stoi(parts[4]) : 0},
                     {"module", parts.str(5)},
                     {"inlined", parts[6].matched},
                     {"python", parts.str(3).ends_with(".py")}});
  }
  return {{"frames", Json(Json::array_t(stack.begin(), stack.begin() + named + 1))},
          {"stack", stack}};
}

Json site_of(const std::string& pages, const std::string& text) {
  Json site = stack_of(text);
  site["estimated_copies"] = pages_of(pages);
  return site;
}

class WrittenMeasurement {
 public:
  void add(const std::string& line) {
    static const std::regex form("( *)(?:([0-9]+) x )?(.*)");
    std::smatch parts;
    std::regex_match(line, parts, form);
    if (parts[1].length() == 0) touched_.clear();
    for (int i = 0; i < (parts[2].matched ? std::stoi(parts[2]) : 1); ++i) {
      const std::string text =
          std::regex_replace(parts.str(3), std::regex("\\{\\}"), std::to_string(i));
      if (parts[1].length() == 0) add_one(text, all_);
      else
        for (const std::size_t each : touched_) add_one(text, all_["processes"][each]);
    }
  }

  cow::Measurement measurement() const {
    auto read = measurement_of(all_);
    if (!read) throw std::runtime_error(read.error().message);
    return *read;
  }

 private:
  void add_one(const std::string& text, Json& owner) {
    static const std::regex form("(\\S+) ?((?:([^ /]+)/?(\\S*) ?)?(.*))");
    std::smatch parts;
    std::regex_match(text, parts, form);
    const std::string kind = parts[1];
    const std::string size = parts[3];
    const std::string name = parts[5];
    if (kind == "all") {
      set_fields(all_, parts[2]);
    } else if (kind == "code") {
      owner["sites"].push_back(site_of(size, name));
    } else if (kind == "mapping" || kind == "type") {
      owner[kind + "s"].push_back({{"name", name}, {"estimated_copies", pages_of(size)}});
    } else if (kind == "failed" || kind == "handled") {
      const auto colon = name.find(':');
      Json failed = {{"address", std::stoull(size, nullptr, 16)},
                     {"reason", name.substr(0, colon)}};
      if (colon != name.npos) failed["frames"] = stack_of(name.substr(colon + 2))["stack"];
      failed["handled"] = kind == "handled";
      owner["failures"].push_back(failed);
    } else if (kind == "new") {
      const std::uint64_t most = parts[4].length() > 0 ? pages_of(parts[4]) : 0;
      all_["new_memory"]["causes"].push_back(
          {{"name", name}, {"estimated_copies", pages_of(size)}, {"most_copies", most}});
    } else if (kind == "new-code") {
      all_["new_memory"]["sites"].push_back(site_of(size, name));
    } else {
      touch(kind);
      for (const std::size_t each : touched_) set_fields(all_["processes"][each], parts[2]);
    }
  }

  // The processes of "@2" or "@*", or a new one.
  void touch(const std::string& who) {
    Json& processes = all_["processes"];
    if (who.starts_with('@')) {
      for (std::size_t i = 0; i < processes.size(); ++i)
        if (who == "@*" || processes[i]["pid"] == std::stoi(who.substr(1))) touched_.push_back(i);
      if (touched_.empty()) throw std::runtime_error("no process " + who);
      return;
    }
    const bool is_root = processes.empty();
    touched_.push_back(processes.size());
    processes.push_back({{"comm", who}});
    set_fields(processes.back(),
               fmt::format("pid={} ppid={} role={} execs={} copied=0 file=0", processes.size(),
                           is_root ? 0 : 1, is_root ? "root" : "child", is_root ? 1 : 0));
  }

  Json all_ = {{"schema", "cowshed.run/2"},
               {"backend", "tracepoint"},
               {"exact", true},
               {"processes", Json::array()}};
  std::vector<std::size_t> touched_;
};

struct ScreenCase {
  std::string name;
  TextForm form;
  std::string like;
  Lines input;
  std::string text;    // as written, up to the screen
  std::string screen;  // as written
};

Lines lines_in(const std::string& text) {
  std::istringstream stream(text);
  Lines lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// The first has the comment that the file begins with, and no name.
std::deque<ScreenCase> cases_in(const std::string& text) {
  std::deque<ScreenCase> cases(1);
  for (const std::string& line : lines_in(text)) {
    if (line.starts_with('[')) {
      std::istringstream words(line.substr(1));
      ScreenCase added;
      std::getline(words, added.name, ']');
      for (std::string word; words >> word;)
        if (word == "--all") added.form.each_process = true;
        else if (word == "--wide") added.form.wide = true;
        else if (word != "like") added.like = word;
      cases.push_back(added);
    } else if (line.empty() || std::string_view("|=+-").find(line[0]) != std::string_view::npos) {
      if (!line.empty()) cases.back().screen += line + "\n";
      continue;
    } else if (!line.starts_with('#')) {
      cases.back().input.push_back(line);
    }
    cases.back().text += line + "\n";
  }
  return cases;
}

// Of all files.
const std::map<std::filesystem::path, std::deque<ScreenCase>>& all_cases() {
  static const auto all = [] {
    std::map<std::filesystem::path, std::deque<ScreenCase>> files;
    for (const auto& entry : std::filesystem::directory_iterator(REPORT_SCREENS))
      files[entry.path()] = cases_in(contents_of(entry.path()));
    return files;
  }();
  return all;
}

const ScreenCase& case_named(const std::string& name) {
  for (const auto& [path, cases] : all_cases())
    if (const auto found = std::ranges::find(cases, name, &ScreenCase::name); found != cases.end())
      return *found;
  throw std::runtime_error("no case " + name);
}

void write_input(const ScreenCase& which, WrittenMeasurement& measurement) {
  if (!which.like.empty()) write_input(case_named(which.like), measurement);
  for (const std::string& line : which.input) measurement.add(line);
}

Lines printed(const ScreenCase& which) {
  WrittenMeasurement written;
  write_input(which, written);
  return lines_in(text_report(written.measurement(), which.form));
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
    if (const Lines fewer = changes(printed(case_named(which.like)), screen);
        fewer.size() < lines.size())
      lines = fewer;
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

void update(const std::filesystem::path& path) {
  std::string text;
  for (const ScreenCase& each : all_cases().at(path)) {
    const bool is_first = &each == &all_cases().at(path)[1];
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
  for (const auto& [path, cases] : all_cases()) {
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
