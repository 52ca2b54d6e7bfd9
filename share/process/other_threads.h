#pragma once

#include <string>
#include <string_view>

namespace cowshed::internal {

// Returns the names and numbers of this process's other threads, such as "pool (4711), io (4712)",
// without those that are called `but`; "" if there are none, and without /proc.
//
// A thread that was joined exits for a moment more, and holds no lock and writes nothing then.  So
// this waits for threads that exit, for up to a second.
std::string other_threads(std::string_view but = {});

}  // namespace cowshed::internal
