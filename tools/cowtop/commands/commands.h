#pragma once

#include <string>
#include <vector>

#include <cowshed/base/error.h>

namespace cowshed::cowtop {

// Run a subcommand with the words that follow its name.  Each returns the exit status (complain.h),
// or an error of cowtop's own that is not printed yet.
Expected<int> check_command(std::vector<std::string> words);
Expected<int> collapse_command(std::vector<std::string> words);
Expected<int> cure_command(std::vector<std::string> words);
Expected<int> diff_command(std::vector<std::string> words);
Expected<int> doctor_command(std::vector<std::string> words);
Expected<int> help_command(std::vector<std::string> words);
Expected<int> record_command(std::vector<std::string> words);
Expected<int> report_command(std::vector<std::string> words);
Expected<int> serve_command(std::vector<std::string> words);
Expected<int> top_command(std::vector<std::string> words);  // without a subcommand

}  // namespace cowshed::cowtop
