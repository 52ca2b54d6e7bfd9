#pragma once

#include <string>
#include <vector>

#include <cowshed/cow/backend.h>

namespace cowshed::cow::test {

// Runs a command under the backend to its end, which is seen at once; but what is sampled may not
// be looked at in time on a busy machine.
Measurement measure_command(Backend& backend, const std::vector<std::string>& arguments);

// Where the subject's source has a function; it prints that when it is told "lines".
int line_of(const std::string& subject, const std::string& function);

}  // namespace cowshed::cow::test
