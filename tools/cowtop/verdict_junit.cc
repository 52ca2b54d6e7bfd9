#include <fmt/format.h>
#include <pugixml.hpp>
#include <sstream>

#include <cowshed/tools/cowtop/printable.h>
#include <cowshed/tools/cowtop/verdict_junit.h>
#include <cowshed/tools/cowtop/verdict_text.h>

namespace cowshed::cowtop {
namespace {

// What XML has no way to write is replaced: control characters, and U+FFFE and U+FFFF.
std::string xml_text(const std::string& any) {
  std::string text = printable(any);
  for (const std::string not_a_character : {"\xef\xbf\xbe", "\xef\xbf\xbf"}) {
    for (auto at = text.find(not_a_character); at != std::string::npos;
         at = text.find(not_a_character)) {
      text.replace(at, not_a_character.size(), "?");
    }
  }
  return text;
}

class Suite {
 public:
  Suite(const Verdict& verdict, Severity severity) : severity_(severity) {
    suite_ = document_.append_child("testsuites").append_child("testsuite");
    suite_.append_attribute("name") = "cowtop check";
    for (const Held& held : verdict.held) add(held);
    for (const std::string& why : verdict.not_measured) {
      add_bad(why.substr(0, why.find(':')), "error", errors_, why);
    }
    suite_.append_attribute("tests") = tests_;
    suite_.append_attribute("failures") = failures_;
    suite_.append_attribute("errors") = errors_;
    suite_.append_attribute("skipped") = skipped_;
    if (verdict.notes.empty()) return;
    std::string notes;
    for (const std::string& note : verdict.notes) notes += xml_text(note) + "\n";
    suite_.append_child("system-err").text() = notes.c_str();
  }

  std::string text() const {
    std::ostringstream stream;
    document_.save(stream, "  ", pugi::format_default, pugi::encoding_utf8);
    return stream.str();
  }

 private:
  void add(const Held& held) {
    std::string name(name_of(held.limit));
    if (held.limit == Limit::object) name += " '" + held.object + "'";
    name += !held.pid          ? ": tree"
            : held.number == 0 ? fmt::format(": root ({})", held.comm)
                               : fmt::format(": child {} ({})", held.number, held.comm);
    if (!held.used_bytes) {
      ++skipped_;
      add_case(name, "skipped", used_text(held));
    } else if (held.is_over()) {
      add_bad(name, "failure", failures_, subject_text(held) + ": " + used_text(held));
    } else {
      add_case(name);
    }
  }

  pugi::xml_node add_case(const std::string& name) {
    ++tests_;
    pugi::xml_node test = suite_.append_child("testcase");
    test.append_attribute("classname") = "cowtop.check";
    test.append_attribute("name") = xml_text(name).c_str();
    return test;
  }
  void add_case(const std::string& name, const char* outcome, const std::string& message) {
    add_case(name).append_child(outcome).append_attribute("message") = xml_text(message).c_str();
  }
  void add_bad(const std::string& name, const char* outcome, unsigned& count,
               const std::string& message) {
    if (severity_ == Severity::warning) {
      add_case(name).append_child("system-out").text() = xml_text(message).c_str();
      return;
    }
    ++count;
    add_case(name, outcome, message);
  }

  Severity severity_;
  pugi::xml_document document_;
  pugi::xml_node suite_;
  unsigned tests_ = 0;
  unsigned failures_ = 0;
  unsigned errors_ = 0;
  unsigned skipped_ = 0;
};

}  // namespace

std::string verdict_junit(const Verdict& verdict, Severity severity) {
  return Suite(verdict, severity).text();
}

}  // namespace cowshed::cowtop
