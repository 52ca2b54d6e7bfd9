#pragma once

#include <string>
#include <vector>

#include <cowshed/base/error.h>

namespace cowshed::cowtop {

// The subcommands, with the words that follow their names.  Each returns the exit status
// (complain.h), or an error of cowtop's own that has not been printed.
Expected<int> check_command(std::vector<std::string> words);
Expected<int> diff_command(std::vector<std::string> words);
Expected<int> doctor_command(std::vector<std::string> words);
Expected<int> record_command(std::vector<std::string> words);
Expected<int> report_command(std::vector<std::string> words);
Expected<int> serve_command(std::vector<std::string> words);
Expected<int> top_command(std::vector<std::string> words);  // without a name: all words

}  // namespace cowshed::cowtop
