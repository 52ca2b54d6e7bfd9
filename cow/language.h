#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/cow/measurement.h>

namespace cowshed::cow {

// These functions are pure: they have no errors, and any thread may call them.
//
// Whose objects a binary or a process writes.  old_python: before 3.12, which has no immortal
// objects.  other: an interpreter without remedies of its own.
enum class Language : std::uint8_t { native, python, old_python, ruby, php, perl, ocaml, r, other };

// "C and C++", as in a list of remedies.
std::string_view title_of(Language language);

inline bool is_python(Language language) {
  return language == Language::python || language == Language::old_python;
}

// Returns the language by the name of an interpreter's executable or library; `native` for other
// binaries.  A Python of unknown version counts as a new one.
Language language_of_file(std::string_view path);

// Returns what an interpreter or a shell runs, by the command line, whose words end with NUL:
// "python3 app.py", "python3 -m http.server", "python3 -c json" for code that imports that, and
// "uvicorn shop:app" for a script that the process is named after.  Without options, and of one
// word, as further words may be secrets.  Empty: it is no interpreter, or the word is not known.
std::string script_of(std::string_view cmdline, std::string_view comm);

// By the name of its file.
bool is_shell(std::string_view name);

// Returns the interpreter whose binary exports a symbol; `native`: none has to.
Language language_of_export(std::string_view symbol);

// Whether the binary is the C library or the dynamic linker.
bool is_c_library(std::string_view path);
bool is_dynamic_linker(std::string_view path);
// Also the C++ library, and what a compiler adds to each program.
bool is_runtime_library(std::string_view path);

// Whether the binary is a library that does work of its own: not of the runtime, no allocator, no
// interpreter, and no module of Python's own library, which does what the program says.
bool is_working_library(std::string_view path);

// Returns the language of each process.  The first of these that names an interpreter decides: its
// sampled copies, by their number; its name; the process that forked it; the samples of all.  In a
// program of another name, functions tell the interpreter, and paths of the standard library
// Python's version.  If none does, that counts as an old one, whose remedies also help a new one.
std::vector<Language> languages_of(const Measurement& measurement);

}  // namespace cowshed::cow
