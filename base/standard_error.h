#pragma once

#include <string_view>

#include <cowshed/base/file_descriptor.h>

// A line of the library in a program that knows nothing of it.  The line is dropped where it would
// wait or kill, as in a full or closed pipe, and where standard error has become another file, such
// as the data file of a daemon that closed its standard streams.  Async-signal-safe.
namespace cowshed::internal {

// Only tests change it.
extern FileIdentity standard_error_at_start;

// Writes a line of at most PIPE_BUF bytes with one call.
void write_or_drop(int fd, std::string_view line) noexcept;

// To the end of `file`, which may be a FIFO, or else to standard error.
void write_line(std::string_view line, const char* file,
                const FileIdentity& standard_error = standard_error_at_start) noexcept;

// Does nothing if standard error is not `expected`, what it was when the program began.
void write_to_standard_error(std::string_view line,
                             const FileIdentity& expected = standard_error_at_start) noexcept;

}  // namespace cowshed::internal
