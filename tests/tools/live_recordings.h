#pragma once

#include <string>

#include <cowshed/cow/process_copies.h>

namespace cowshed::cowtop {

// A server of six processes after so many seconds, always the same: one worker ends after 2 s, one
// is killed after 3 s, the server ends after 21 s.
cow::Measurement server_after(int seconds);

// A recording of it after 1, 2, 3, 20 and 21 s.
void record_server(const std::string& path);
// Of one interval with so many workers and their server; none: without processes.
void record_workers(const std::string& path, int workers);

}  // namespace cowshed::cowtop
