#include <fmt/format.h>
#include <regex>
#include <sstream>

#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tests/tools/report/screens.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>

namespace cowshed::cowtop {
namespace {

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
      {"alike", {"alike.private_bytes", "alike.same_address_bytes"}},  // alike=20M+10M
      {"memory", {"memory.shared_bytes", "memory.private_bytes"}},     // memory=1M+2M
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
      const auto by = name.find(" by ");
      all_["new_memory"]["causes"].push_back({{"name", name.substr(0, by)},
                                              {"estimated_copies", pages_of(size)},
                                              {"most_copies", most}});
      if (by != name.npos) all_["new_memory"]["causes"].back()["library"] = name.substr(by + 4);
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

void write_input(const ScreenCase& which, WrittenMeasurement& measurement) {
  if (!which.like.empty()) write_input(screen_named(which.like), measurement);
  for (const std::string& line : which.input) measurement.add(line);
}

}  // namespace

Lines lines_in(const std::string& text) {
  std::istringstream stream(text);
  Lines lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

const std::map<std::filesystem::path, std::deque<ScreenCase>>& all_screens() {
  static const auto all = [] {
    std::map<std::filesystem::path, std::deque<ScreenCase>> files;
    for (const auto& entry : std::filesystem::directory_iterator(REPORT_SCREENS))
      files[entry.path()] = cases_in(contents_of(entry.path()));
    return files;
  }();
  return all;
}

const ScreenCase& screen_named(const std::string& name) {
  for (const auto& [path, cases] : all_screens())
    if (const auto found = std::ranges::find(cases, name, &ScreenCase::name); found != cases.end())
      return *found;
  throw std::runtime_error("no case " + name);
}

cow::Measurement measurement_of(const ScreenCase& which) {
  WrittenMeasurement written;
  write_input(which, written);
  return written.measurement();
}

}  // namespace cowshed::cowtop
