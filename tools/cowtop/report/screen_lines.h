#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/tools/cowtop/analysis/summary.h>
#include <cowshed/tools/cowtop/text/figures.h>

// Words and lines of the report that fits on a screen (text_report.h).
namespace cowshed::cowtop {

constexpr int kColumns = 80;

// Lines of at most so many columns.  Continued ones are indented.
std::vector<std::string> wrapped(const std::string& text, int columns);
// Lines of a screen, each with its end.
std::string lines_of(const std::string& text);

// Without the arguments of functions and templates: "ranked before.cc:44", "ranked (a.out)".
std::string without_arguments(const std::string& name);

std::string name_of(const ProcessGroup& group);
std::uint64_t mean_copied(const ProcessGroup& group);
// "76.1 MiB", or "3.0 to 76.1 MiB" of a group whose processes differ.
std::string copied_each(const ProcessGroup& group);
// "42.2 MiB", or "3 to 42 MiB", of what is their own.
std::string own_each(const ProcessGroup& group);
// "89.0 MiB", or "25 to 100 MiB" of a group whose processes differ.
std::string shared_each(const ProcessGroup& group);

}  // namespace cowshed::cowtop
