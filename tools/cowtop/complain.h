#pragma once

#include <string_view>

#include <cowshed/base/error.h>

namespace cowshed::cowtop {

// One line on standard error, whatever the names in it hold (printable.h).
void complain(std::string_view message);

// The same of an error of cowtop's own, and the exit status of that.
int own_error(const Error& error);
// Where a command of the user's has run: its own failure comes first.
int own_error_after(const Error& error, int exit_status);

}  // namespace cowshed::cowtop
