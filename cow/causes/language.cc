#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>

#include <cowshed/cow/copy_profile.h>
#include <cowshed/cow/language.h>
#include <cowshed/cow/process_tree.h>

namespace cowshed::cow {
namespace {

constexpr std::array<std::string_view, 9> kTitles = {
    "C and C++", "Python 3.12 and newer", "older Python", "Ruby", "PHP", "Perl", "OCaml",
    "R",         "other languages"};
static_assert(kTitles.size() == std::size_t(Language::other) + 1);

bool has_name(std::string_view path, std::initializer_list<std::string_view> beginnings) {
  return std::ranges::any_of(beginnings, [&](std::string_view beginning) {
    return base_name(path).starts_with(beginning);
  });
}

// Whether it is a version and the like, rather than more words: as in python3.11d,
// libruby-3.1.so.3.1 and php-fpm8.2, but not in perls, node-1, node_exporter or
// python3-config-server.
bool ends_a_name(std::string_view rest) {
  rest = rest.substr(0, rest.find(".so"));
  if (rest.starts_with("-fpm") || rest.starts_with("-cgi")) rest.remove_prefix(4);
  else if (rest.starts_with("-") && rest.find('.') != rest.npos) rest.remove_prefix(1);
  const std::size_t version = rest.find_first_not_of("0123456789.");
  return version == std::string_view::npos ||
         (version > 0 && version + 1 == rest.size());  // "d", "m", "t"
}

constexpr std::string_view kThree = "python3.";

// "python3.11", "libpython3.13.so.1.0", or "/usr/lib/python3.11/queue.py".
Language version_of_python(std::string_view name) {
  constexpr int kFirstWithImmortals = 12;
  const auto at = name.find(kThree);
  int minor = kFirstWithImmortals;
  if (at != name.npos)
    std::from_chars(name.data() + at + kThree.size(), name.data() + name.size(), minor);
  return minor < kFirstWithImmortals ? Language::old_python : Language::python;
}

// An interpreter may have another name, or be part of a program.
Language language_of_function(const Frame& frame) {
  struct Prefix {
    std::string_view text;
    Language language;
  };
  static constexpr std::array kPrefixes = {
      Prefix{"caml_", Language::ocaml}, Prefix{"Perl_", Language::perl},
      Prefix{"ruby_", Language::ruby}, Prefix{"zend_", Language::php},
      Prefix{"Rf_eval", Language::r}};
  if (frame.is_python)
    return frame.file.find(kThree) == frame.file.npos ? Language::old_python
                                                      : version_of_python(frame.file);
  const auto found = std::ranges::find_if(
      kPrefixes, [&](const Prefix& prefix) { return frame.function.starts_with(prefix.text); });
  return found == kPrefixes.end() ? Language::native : found->language;
}

Language language_of_frame(const Frame& frame) {
  const Language language = language_of_file(frame.module);
  return language == Language::native ? language_of_function(frame) : language;
}

// Returns the language with most of the copies; `native`: no frame is of an interpreter.
Language elected(const std::vector<CodeSite>& sites) {
  std::array<std::uint64_t, kTitles.size()> votes{};
  for (const CodeSite& site : sites) {
    for (const Frame& frame : site.stack) {
      const Language language = language_of_frame(frame);
      if (language == Language::native) continue;
      votes.at(std::size_t(language)) += site.estimated_copies;
      break;
    }
  }
  const auto most = std::ranges::max_element(votes);
  return *most == 0 ? Language::native : Language(most - votes.begin());
}

}  // namespace

std::string_view title_of(Language language) { return kTitles.at(std::size_t(language)); }

Language language_of_file(std::string_view path) {
  struct Prefix {
    std::string_view text;
    Language language;
  };
  static constexpr std::array kPrefixes = {
      Prefix{"python", Language::python},  Prefix{"libpython", Language::python},
      Prefix{"ruby", Language::ruby},      Prefix{"libruby", Language::ruby},
      Prefix{"php", Language::php},        Prefix{"libphp", Language::php},
      Prefix{"perl", Language::perl},      Prefix{"libperl", Language::perl},
      Prefix{"ocamlrun", Language::ocaml}, Prefix{"libR.so", Language::r},
      Prefix{"lua", Language::other},      Prefix{"liblua", Language::other},
      Prefix{"guile", Language::other},    Prefix{"libguile", Language::other},
      Prefix{"node", Language::other},     Prefix{"libnode", Language::other},
      Prefix{"nodejs", Language::other},   Prefix{"libjvm", Language::other},
      Prefix{"luajit", Language::other},   Prefix{"beam.smp", Language::other}};
  const std::string_view name = base_name(path);
  if (name == "R") return Language::r;
  for (const Prefix& prefix : kPrefixes) {
    if (!name.starts_with(prefix.text) || !ends_a_name(name.substr(prefix.text.size()))) continue;
    return is_python(prefix.language) ? version_of_python(name) : prefix.language;
  }
  return Language::native;
}

std::string script_of(std::string_view cmdline, std::string_view comm) {
  constexpr std::size_t kLongest = 40;
  const auto next = [&] {
    const std::string_view word = cmdline.substr(0, cmdline.find('\0'));
    cmdline.remove_prefix(std::min(cmdline.size(), word.size() + 1));
    return word;
  };
  std::string_view program = base_name(next());
  if (language_of_file(program) == Language::native && !is_shell(program)) return {};
  std::string_view option;
  for (std::string_view word = next(); !word.empty(); word = next()) {
    if (option.empty() && base_name(word) == comm) {
      program = comm;
    } else if (option.empty() && (word == "-c" || word == "-m")) {
      option = word;
    } else if (!option.empty() || !word.starts_with('-')) {
      if (option.empty()) word = base_name(word);
      for (const std::string_view verb : {"from ", "import "})
        if (option == "-c" && word.starts_with(verb)) word.remove_prefix(verb.size());
      word = word.substr(0, std::min(word.find_first_of(" ;,\n"), kLongest));
      if (word.find_first_of("=\"'") != word.npos) return {};  // of code: it may be a secret
      return std::string(program).append(option.empty() ? "" : " ").append(option) + " " +
             std::string(word);
    }
  }
  return {};
}

bool is_shell(std::string_view name) {
  constexpr std::array<std::string_view, 5> kShells = {"sh", "bash", "dash", "zsh", "ksh"};
  return std::ranges::find(kShells, name) != kShells.end();
}

Language language_of_export(std::string_view symbol) {
  if (symbol == "Perl_runops_standard") return Language::perl;
  if (symbol == "zend_execute_scripts") return Language::php;
  if (symbol == "ruby_run_node") return Language::ruby;
  return symbol == "Rf_eval" ? Language::r : Language::native;
}

bool is_c_library(std::string_view path) {
  return has_name(path, {"libc.so", "libc-2", "ld-musl"});
}

bool is_dynamic_linker(std::string_view path) {
  return has_name(path, {"ld-linux", "ld.so", "ld-musl", "ld-2"});
}

bool is_runtime_library(std::string_view path) {
  return is_c_library(path) || is_dynamic_linker(path) ||
         has_name(path, {"libstdc++.so", "libgcc_s.so", "libpthread", "libm.so", "[vdso]"});
}

bool is_working_library(std::string_view path) {
  return base_name(path).find(".so") != path.npos && path.find("/lib-dynload/") == path.npos &&
         !is_runtime_library(path) && language_of_file(path) == Language::native &&
         !has_name(path, {"libjemalloc", "libtcmalloc", "libmimalloc"});
}

std::vector<Language> languages_of(const Measurement& measurement) {
  const std::vector<ProcessCopies>& processes = measurement.processes;
  const std::vector<std::size_t> above = parents(processes);
  const Language of_all =
      measurement.sampled ? elected(measurement.sampled->sites) : Language::native;
  std::vector<Language> languages;
  for (std::size_t i = 0; i < processes.size(); ++i) {  // in order of start
    const ProcessCopies& process = processes[i];
    const bool has_samples = process.sampled && !process.sampled->sites.empty();
    Language language = has_samples ? elected(process.sampled->sites) : Language::native;
    if (language == Language::native) language = language_of_file(process.comm);
    if (language == Language::native && process.execs == 0 && above[i] < i)
      language = languages[above[i]];
    if (language == Language::native && !has_samples) language = of_all;
    languages.push_back(language);
  }
  return languages;
}

}  // namespace cowshed::cow
