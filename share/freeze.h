#pragma once

#include <cstddef>
#include <string>

#include <cowshed/share/address_range.h>

namespace cowshed {

// Turns the shared, writable mapping into the frozen one, of which the first `used` bytes are kept
// (a multiple of 2 MiB) and the rest becomes inaccessible.  Returns the bytes in huge pages.  On
// failure the mapping is as before.
Expected<std::size_t> freeze_mapping(const ArenaMapping& mapping, std::size_t used, FreezeMode mode,
                                     const std::string& name);

}  // namespace cowshed
