#pragma once

#include <string>
#include <vector>

namespace cowshed::cowtop {

// The subcommands, with the words that follow their names.  Each returns the exit status
// (exit_status.h).
int check_command(std::vector<std::string> words);
int diff_command(std::vector<std::string> words);
int doctor_command(std::vector<std::string> words);
int record_command(std::vector<std::string> words);
int report_command(std::vector<std::string> words);
int serve_command(std::vector<std::string> words);

}  // namespace cowshed::cowtop
