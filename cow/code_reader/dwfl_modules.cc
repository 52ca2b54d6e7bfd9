#include <array>
#include <cstring>
#include <elfutils/libdwelf.h>
#include <fmt/format.h>
#include <iterator>
#include <libelf.h>
#include <string>
#include <string_view>

#include <cowshed/cow/code_reader/dwfl_modules.h>

namespace cowshed::cow {
namespace {

std::string build_id_text(const void* bytes, ssize_t size) {
  constexpr ssize_t kMostBytes = 64;
  std::string text;
  if (size > kMostBytes) return text;
  for (ssize_t i = 0; i < size; ++i)
    fmt::format_to(std::back_inserter(text), "{:02x}", static_cast<const std::uint8_t*>(bytes)[i]);
  return text;
}

std::string build_id_of(Elf* elf) {
  const void* bytes = nullptr;
  const ssize_t size = elf == nullptr ? 0 : ::dwelf_elf_gnu_build_id(elf, &bytes);
  return build_id_text(bytes, size);
}

// The checksum of .gnu_debuglink.
std::uint32_t crc_of(std::string_view bytes) {
  constexpr std::uint32_t kPolynomial = 0xedb88320;
  static const auto table = [] {
    std::array<std::uint32_t, 256> result{};
    for (std::uint32_t i = 0; i < result.size(); ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1U) ^ ((value & 1U) * kPolynomial);
      result.at(i) = value;
    }
    return result;
  }();
  std::uint32_t crc = ~0U;
  for (const char byte : bytes)
    crc = table.at((crc ^ static_cast<unsigned char>(byte)) & 0xffU) ^ (crc >> 8U);
  return ~crc;
}

// Compares the build IDs; if the binary has none, the checksum of the whole file.
bool is_debug_file_of(int fd, const std::string& build_id, std::uint32_t crc) {
  Elf* elf = ::elf_begin(fd, ELF_C_READ_MMAP, nullptr);
  if (elf == nullptr) return false;
  bool is_it = false;
  if (!build_id.empty()) {
    is_it = build_id_of(elf) == build_id;
  } else {
    std::size_t bytes = 0;
    const char* image = ::elf_rawfile(elf, &bytes);
    is_it = image != nullptr && crc_of({image, bytes}) == crc;
  }
  ::elf_end(elf);
  return is_it;
}

int find_reported_elf(Dwfl_Module* /*module*/, void** userdata, const char* /*name*/,
                      Dwarf_Addr /*base*/, char** file_name, Elf** elf) {
  const auto* binary = static_cast<const DwflBinary*>(*userdata);
  if (binary != nullptr && binary->elf != nullptr) {
    *elf = ::elf_begin(-1, ELF_C_READ, binary->elf->elf());  // adds a reference
    *file_name = ::strdup(binary->elf->path().c_str());
  }
  return -1;  // no descriptor
}

// In place of dwfl_standard_find_debuginfo(), which opens any file that a .gnu_debuglink names, and
// asks servers.
int find_debug_file(Dwfl_Module* /*module*/, void** userdata, const char* /*module_name*/,
                    Dwarf_Addr /*base*/, const char* file_name, const char* debuglink,
                    GElf_Word debuglink_crc, char** /*debug_file_name*/) {
  const auto* binary = static_cast<const DwflBinary*>(*userdata);
  if (binary == nullptr || binary->file_of == nullptr || file_name == nullptr) return -1;
  const std::string build_id = build_id_of(binary->elf->elf());
  const std::string link =
      debuglink != nullptr ? debuglink : std::string(base_name(file_name)) + ".debug";
  for (const FileKind kind :
       {FileKind::build_id, FileKind::beside, FileKind::debug_folder, FileKind::system_folder}) {
    const std::string& name = kind == FileKind::build_id ? build_id : link;
    if (name.empty()) continue;
    FileDescriptor file = (*binary->file_of)(binary->id, kind, name);
    if (file && is_debug_file_of(file.get(), build_id, debuglink_crc)) return file.release();
  }
  return -1;
}

}  // namespace

Dwfl_Module* report_binary(Dwfl& dwfl, const DwflBinary& binary, std::uint64_t begin,
                           std::uint64_t end) {
  const char* name = binary.elf == nullptr ? "" : binary.elf->path().c_str();
  Dwfl_Module* module = ::dwfl_report_module(&dwfl, name, begin, end);
  void** userdata = nullptr;
  if (module != nullptr && ::dwfl_module_info(module, &userdata, nullptr, nullptr, nullptr, nullptr,
                                              nullptr, nullptr) != nullptr) {
    *userdata = const_cast<DwflBinary*>(&binary);  // libdwfl only stores it
  }
  return module;
}

const DwflBinary* binary_of(Dwfl_Module* module, std::uint64_t& begin) {
  void** userdata = nullptr;
  if (module == nullptr || ::dwfl_module_info(module, &userdata, &begin, nullptr, nullptr, nullptr,
                                              nullptr, nullptr) == nullptr) {
    return nullptr;
  }
  return static_cast<const DwflBinary*>(*userdata);
}

const Dwfl_Callbacks* dwfl_callbacks() {
  static char* no_path = nullptr;
  static const Dwfl_Callbacks callbacks = {.find_elf = find_reported_elf,
                                           .find_debuginfo = find_debug_file,
                                           .section_address = ::dwfl_offline_section_address,
                                           .debuginfo_path = &no_path};
  return &callbacks;
}

SharedDebugFile::SharedDebugFile(Dwfl_Module* module) {
  Dwarf_Addr bias = 0;
  Dwarf* debug = ::dwfl_module_getdwarf(module, &bias);
  std::uint64_t begin = 0;
  const DwflBinary* binary = binary_of(module, begin);
  if (debug == nullptr || binary == nullptr || binary->file_of == nullptr) return;
  const char* name = nullptr;
  const void* bytes = nullptr;
  const ssize_t size = ::dwelf_dwarf_gnu_debugaltlink(debug, &name, &bytes);
  if (size <= 0) return;
  file_ = (*binary->file_of)(binary->id, FileKind::build_id, build_id_text(bytes, size));
  if (file_) dwarf_ = ::dwarf_begin(file_.get(), DWARF_C_READ);
  if (dwarf_ != nullptr) ::dwarf_setalt(debug, dwarf_);
}

SharedDebugFile::~SharedDebugFile() { ::dwarf_end(dwarf_); }

}  // namespace cowshed::cow
