#pragma once

namespace cowshed::python {

// After gc.unfreeze() the collector may stop to track what is frozen: from 3.14 all of it, before
// that dicts.  This tracks it again, or new objects in there would not be found.
void track_frozen_again();

}  // namespace cowshed::python
