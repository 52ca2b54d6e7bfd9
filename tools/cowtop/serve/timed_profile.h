#pragma once

#include <chrono>
#include <string>

#include <cowshed/base/error.h>
#include <cowshed/cow/open_backend.h>
#include <cowshed/tools/cowtop/measure/selection.h>

namespace cowshed::cowtop {

// Measures the selection for a time, by a backend of its own with samples, and returns the profile
// (report/pprof_report.h).  Ends early when `stop_fd` is readable.  Errors: those of
// SelectedProcesses and of cow::open_backend(); system_call.
Expected<std::string> timed_profile(const Selection& selection, cow::BackendChoice choice,
                                    std::chrono::seconds time, int stop_fd);

}  // namespace cowshed::cowtop
