#pragma once

#include <cowshed/base/error.h>
#include <cowshed/share/content.h>

// This process's arenas and what is published in them, for messages of kind adopt.
namespace cowshed::launch {

Expected<internal::Content> pack_for_message();

// The process has them to its end, or until it is handed others: these are all that there are.  In
// one without threads.
Expected<void> adopt_for_ever(internal::Content& content);

}  // namespace cowshed::launch
