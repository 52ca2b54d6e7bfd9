#pragma once

namespace cowshed::settling {

// Adds private mappings of files to what core dumps of this process and its later children hold.
void keep_files_in_core_dumps() noexcept;

}  // namespace cowshed::settling
