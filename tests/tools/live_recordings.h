#pragma once

#include <cowshed/cow/process_copies.h>

namespace cowshed::cowtop {

// A server of six processes after so many seconds, always the same: one worker ends after 2 s, one
// is killed after 3 s, the server ends after 21 s.
cow::Measurement server_after(int seconds);

// So many workers and their server; none: no processes.
cow::Measurement workers(int count);

}  // namespace cowshed::cowtop
