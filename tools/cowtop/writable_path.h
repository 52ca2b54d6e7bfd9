#pragma once

#include <string>

#include <cowshed/base/error.h>
#include <cowshed/share/descriptor.h>

namespace cowshed::cowtop {

// Opens a file for writing, and makes it where it is not there; waits for the reader of a FIFO.
// In a folder that others may write to (to root: wherever it is not root's alone) it follows no
// symlink, and takes no FIFO and the like of somebody else, nor a file with another name elsewhere;
// in a folder that everybody may write to, no file of somebody else at all.  Whoever put it there
// may mean harm.  Errors: permission_denied for what is refused so; system_call.
Expected<Descriptor> open_for_writing(const std::string& path);

}  // namespace cowshed::cowtop
