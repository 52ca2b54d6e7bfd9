#pragma once

#include <string>

#include <cowshed/base/error.h>
#include <cowshed/share/descriptor.h>

namespace cowshed::cowtop {

// Opens a file for writing, and makes it where it is not there; waits for the reader of a FIFO.
// Where others may write to a folder on the way (to root: wherever it is not root's alone), it
// follows no symlink of somebody else, and none at all at the end of the way in a folder that
// everybody may write to; takes no FIFO and the like of somebody else, nor a file with another name
// elsewhere; and in a folder that everybody may write to no file of somebody else: whoever put it
// there may mean harm.  Under sudo, a symlink of the user who called it is followed from a folder
// that is that user's alone to another one that is.  Not for threads that change the working
// folder.  Errors: permission_denied for what is refused so; system_call.
Expected<Descriptor> open_for_writing(const std::string& path);

}  // namespace cowshed::cowtop
