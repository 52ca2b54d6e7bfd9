#pragma once

#include <string>
#include <string_view>

#include <cowshed/base/error.h>

namespace cowshed::cowtop {

// The exit statuses of every form of cowtop that runs a command, beside the command's own, which is
// passed through.
inline constexpr int kOverBudget = 99;      // of cowtop check
inline constexpr int kOwnError = 125;       // cowtop's own error, or bad usage
inline constexpr int kNotExecutable = 126;  // the command was found and could not be run
inline constexpr int kNotFound = 127;       // no such command
inline constexpr int kSignalBase = 128;     // + N where signal N ended the command

// invalid_argument.
tl::unexpected<Error> wrong(std::string message);

// One line on standard error, whatever the names in it hold (figures.h).
void complain(std::string_view message);

// The same of an error of cowtop's own, and the exit status of that.
int own_error(const Error& error);
// Where a command of the user's has run: its own failure comes first.
int own_error_after(const Error& error, int exit_status);

}  // namespace cowshed::cowtop
