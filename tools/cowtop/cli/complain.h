#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <cowshed/base/error.h>

namespace cowshed::cowtop {

// The exit statuses of cowtop, beside that of the command, which it passes through.
inline constexpr int kOverBudget = 99;      // of cowtop check
inline constexpr int kOwnError = 125;       // cowtop's own error, or bad usage
inline constexpr int kNotExecutable = 126;  // the command was found and could not be run
inline constexpr int kNotFound = 127;       // no such command
inline constexpr int kSignalBase = 128;     // + N where signal N ended the command

// Returns how many characters of `a` must be changed, added or removed to make `b`.  A small number
// means that `a` is probably a misspelt `b`.
std::size_t edits(std::string_view a, std::string_view b);

// Returns the error invalid_argument.
tl::unexpected<Error> wrong(std::string message);

// Prints one line on standard error.  Control characters are replaced (figures.h).
void complain(std::string_view message);

// Prints an error of cowtop's own and returns its exit status.
int own_error(const Error& error);
// Does the same after a command has run: returns the command's status unless that is 0.
int own_error_after(const Error& error, int exit_status);

}  // namespace cowshed::cowtop
