#include <algorithm>
#include <array>
#include <initializer_list>

#include <cowshed/cow/causes/interpreters.h>
#include <cowshed/cow/copy_profile.h>

namespace cowshed::cow {
namespace {

bool has_name(std::string_view path, std::initializer_list<std::string_view> beginnings) {
  return std::ranges::any_of(beginnings, [&](std::string_view beginning) {
    return base_name(path).starts_with(beginning);
  });
}

// Whether it is a version and the like, rather than more words: as in python3.11d,
// libruby-3.1.so.3.1 and php-fpm8.2, but not in perlin, node_exporter or python3-config-server.
bool ends_a_name(std::string_view rest) {
  rest = rest.substr(0, rest.find(".so"));
  for (const std::string_view part : {"-fpm", "-cgi", "-"}) {
    if (!rest.starts_with(part)) continue;
    rest.remove_prefix(part.size());
    break;
  }
  const std::size_t version = rest.find_first_not_of("0123456789.");
  return version == std::string_view::npos || version + 1 == rest.size();  // "d", "m", "t"
}

}  // namespace

Interpreter interpreter_of(std::string_view path) {
  struct Prefix {
    std::string_view text;
    Interpreter interpreter;
  };
  static constexpr std::array kPrefixes = {
      Prefix{"python", Interpreter::python},  Prefix{"libpython", Interpreter::python},
      Prefix{"ruby", Interpreter::ruby},      Prefix{"libruby", Interpreter::ruby},
      Prefix{"php", Interpreter::php},        Prefix{"libphp", Interpreter::php},
      Prefix{"perl", Interpreter::perl},      Prefix{"libperl", Interpreter::perl},
      Prefix{"libR.so", Interpreter::r},      Prefix{"lua", Interpreter::other},
      Prefix{"liblua", Interpreter::other},   Prefix{"guile", Interpreter::other},
      Prefix{"libguile", Interpreter::other}, Prefix{"node", Interpreter::other},
      Prefix{"libnode", Interpreter::other},  Prefix{"libjvm", Interpreter::other},
      Prefix{"nodejs", Interpreter::other},   Prefix{"luajit", Interpreter::other},
      Prefix{"ocamlrun", Interpreter::other}, Prefix{"beam.smp", Interpreter::other}};
  const std::string_view name = base_name(path);
  for (const Prefix& prefix : kPrefixes)
    if (name.starts_with(prefix.text) && ends_a_name(name.substr(prefix.text.size())))
      return prefix.interpreter;
  return Interpreter::none;
}

bool is_c_library(std::string_view path) {
  return has_name(path, {"libc.so", "libc-2", "ld-musl"});
}

bool is_dynamic_linker(std::string_view path) {
  return has_name(path, {"ld-linux", "ld.so", "ld-musl", "ld-2"});
}

}  // namespace cowshed::cow
