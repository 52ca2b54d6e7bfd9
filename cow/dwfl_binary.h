#pragma once

#include <elfutils/libdwfl.h>

#include <cowshed/cow/binaries.h>

namespace cowshed::cow {

// Tells `dwfl`, between begin and end of its report, that `binary` is mapped there; null where it
// would not.  The binary must outlive it.
Dwfl_Module* report_binary(Dwfl& dwfl, const Binary& binary, std::uint64_t begin,
                           std::uint64_t end);

// The one of a module that was so reported, else null; and the mapping's begin.
const Binary* binary_of(Dwfl_Module* module, std::uint64_t& begin);

// A callback of libdwfl's: the ELF file that the reported binary has open.
int find_reported_elf(Dwfl_Module* module, void** userdata, const char* name, Dwarf_Addr base,
                      char** file_name, Elf** elf);

}  // namespace cowshed::cow
