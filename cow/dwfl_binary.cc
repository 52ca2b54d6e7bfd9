#include <cstring>

#include <cowshed/cow/dwfl_binary.h>

namespace cowshed::cow {

Dwfl_Module* report_binary(Dwfl& dwfl, const Binary& binary, std::uint64_t begin,
                           std::uint64_t end) {
  Dwfl_Module* module = ::dwfl_report_module(&dwfl, binary.path.c_str(), begin, end);
  void** userdata = nullptr;
  if (module != nullptr && ::dwfl_module_info(module, &userdata, nullptr, nullptr, nullptr, nullptr,
                                              nullptr, nullptr) != nullptr) {
    *userdata = const_cast<Binary*>(&binary);  // libdwfl's interface; only read
  }
  return module;
}

const Binary* binary_of(Dwfl_Module* module, std::uint64_t& begin) {
  void** userdata = nullptr;
  if (module == nullptr || ::dwfl_module_info(module, &userdata, &begin, nullptr, nullptr, nullptr,
                                              nullptr, nullptr) == nullptr) {
    return nullptr;
  }
  return static_cast<const Binary*>(*userdata);
}

int find_reported_elf(Dwfl_Module* /*module*/, void** userdata, const char* /*name*/,
                      Dwarf_Addr /*base*/, char** file_name, Elf** elf) {
  const auto* binary = static_cast<const Binary*>(*userdata);
  if (binary != nullptr && binary->elf) {
    *elf = ::elf_begin(-1, ELF_C_READ, binary->elf.get());  // one reference more
    *file_name = ::strdup(binary->path.c_str());
  }
  return -1;  // no descriptor
}

}  // namespace cowshed::cow
