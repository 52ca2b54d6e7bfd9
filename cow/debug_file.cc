#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include <cowshed/cow/debug_file.h>

namespace cowshed::cow {
namespace {

namespace fs = std::filesystem;

bool is_a_server_named() {
  const char* urls = std::getenv("DEBUGINFOD_URLS");
  return urls != nullptr && *urls != '\0';
}

bool is_beside(const fs::path& binary, const std::string& name) {
  const fs::path folder = binary.parent_path();
  const std::array<fs::path, 3> places = {folder / name, folder / ".debug" / name,
                                          "/usr/lib/debug" / folder.relative_path() / name};
  std::error_code ignored;
  for (const fs::path& place : places) {
    if (fs::exists(place, ignored)) return true;
  }
  return false;
}

// Where libdwfl looks by name (libdwfl/find-debuginfo.c).
bool may_have_name(const char* file_name, const char* debuglink) {
  if (file_name == nullptr) return false;
  const fs::path binary = file_name;
  const std::string name =
      debuglink == nullptr ? binary.filename().string() + ".debug" : std::string(debuglink);
  if (name.find('/') != std::string::npos) return true;  // what several files share, of dwz
  std::error_code ignored;
  return is_beside(binary, name) || is_beside(fs::weakly_canonical(binary, ignored), name);
}

}  // namespace

int find_debug_file(Dwfl_Module* module, void** userdata, const char* module_name, Dwarf_Addr base,
                    const char* file_name, const char* debuglink, GElf_Word debuglink_crc,
                    char** debug_file_name) {
  const auto ask = [&](auto* find) {
    return find(module, userdata, module_name, base, file_name, debuglink, debuglink_crc,
                debug_file_name);
  };
  if (is_a_server_named() || may_have_name(file_name, debuglink)) {
    return ask(::dwfl_standard_find_debuginfo);
  }
  return ask(::dwfl_build_id_find_debuginfo);
}

}  // namespace cowshed::cow
