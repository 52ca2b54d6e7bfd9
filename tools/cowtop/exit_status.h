#pragma once

// The exit statuses of every form of cowtop that runs a command, beside the command's own, which is
// passed through.
namespace cowshed::cowtop {

inline constexpr int kOverBudget = 99;      // of cowtop check
inline constexpr int kOwnError = 125;       // cowtop's own error, or bad usage
inline constexpr int kNotExecutable = 126;  // the command was found and could not be run
inline constexpr int kNotFound = 127;       // no such command
inline constexpr int kSignalBase = 128;     // + N where signal N ended the command

}  // namespace cowshed::cowtop
