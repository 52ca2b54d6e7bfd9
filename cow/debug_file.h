#pragma once

#include <elfutils/libdwfl.h>

namespace cowshed::cow {

// A callback of libdwfl's: the file of a binary's debug information, as
// dwfl_standard_find_debuginfo() finds it.  That one loads libdebuginfod and its 33 libraries
// (libcurl, OpenSSL), of which 7 MiB stay in memory, for each binary that it finds nothing of, also
// where no server is named (libdwfl/debuginfod-client.c of elfutils 0.188).  This one asks it only
// where DEBUGINFOD_URLS names one, or a file has the name.
int find_debug_file(Dwfl_Module* module, void** userdata, const char* module_name, Dwarf_Addr base,
                    const char* file_name, const char* debuglink, GElf_Word debuglink_crc,
                    char** debug_file_name);

}  // namespace cowshed::cow
