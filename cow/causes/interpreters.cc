#include <algorithm>
#include <array>
#include <initializer_list>

#include <cowshed/cow/causes/interpreters.h>
#include <cowshed/cow/copy_profile.h>

namespace cowshed::cow {
namespace {

bool has_name(std::string_view path, std::initializer_list<std::string_view> beginnings) {
  return std::any_of(beginnings.begin(), beginnings.end(), [&](std::string_view beginning) {
    return base_name(path).starts_with(beginning);
  });
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
      Prefix{"ocamlrun", Interpreter::other}, Prefix{"beam", Interpreter::other}};
  const std::string_view name = base_name(path);
  for (const Prefix& prefix : kPrefixes)
    if (name.starts_with(prefix.text)) return prefix.interpreter;
  return Interpreter::none;
}

bool is_c_library(std::string_view path) {
  return has_name(path, {"libc.so", "libc-2", "ld-musl"});
}

bool is_dynamic_linker(std::string_view path) {
  return has_name(path, {"ld-linux", "ld.so", "ld-musl", "ld-2"});
}

}  // namespace cowshed::cow
