#pragma once

#include <string>

#include <cowshed/cow/measurement.h>
#include <cowshed/tests/support/folder.h>

namespace cowshed::cowtop {

// A measurement in which every field is something else than when it was made.
cow::Measurement full_measurement();

// A child that copied so many anonymous pages, and nothing of files; a root; and an exact
// measurement.
cow::ProcessCopies copier(pid_t pid, const std::string& comm, std::uint64_t pages, pid_t ppid = 0);
cow::ProcessCopies root_copier(pid_t pid, const std::string& comm, std::uint64_t pages);
cow::Measurement measurement_with(std::vector<cow::ProcessCopies> processes);

using TestFolder = test::Folder;
using test::contents_of;
using test::write_file;

}  // namespace cowshed::cowtop
