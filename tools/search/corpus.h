#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <cowshed/base/error.h>

// The package lists that `apt-get update` leaves on every Debian machine.
namespace cowshed::search {

// Paths of *_Packages and *_Packages.{lz4,gz,xz,...}, sorted.  Errors: the folder cannot be read,
// or has none.
Expected<std::vector<std::filesystem::path>> find_lists(const std::filesystem::path& folder);

// The whole text of one, decompressed by apt's own helper, which knows every format that apt
// writes.  Errors: it cannot be read, or its compressed data is damaged.
Expected<std::string> read_list(const std::filesystem::path& list);

}  // namespace cowshed::search
