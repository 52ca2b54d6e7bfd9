#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/cow/figures.h>

// Formats figures and names for the reports.
namespace cowshed::cowtop {

inline constexpr double kMiB = 1024.0 * 1024.0;
inline constexpr const char* kUnknown = "-";  // a figure that the backend cannot know

// The character that a text begins with.
struct Character {
  char32_t code = 0;
  std::size_t bytes = 0;  // of its UTF-8; 0: the text begins with no valid UTF-8
};
Character first_character(std::string_view text);

// Whether it is neither a control character nor one that only directs, joins or hides others.
bool is_printable(char32_t character);

// Replaces such characters and invalid UTF-8 by '?', because the name of a command may contain any
// bytes.
std::string printable(std::string_view text);
// The same for text of several lines.  Every report goes through this before it is written.
std::string printable_lines(std::string_view text);

// Returns "fill() fill.cc:12", "total (pool.py:4)" of Python, or what else is known of the frame.
std::string frame_text(const cow::Frame& frame);

// Returns the name of a site, the same in every report.
std::string site_name(const cow::CodeSite& site);

std::string plural(std::uint64_t count, std::string_view one);  // "2 processes"
std::string whole_percent(double ratio);                        // "85%"
// A line break between a number and its unit misleads.
inline constexpr const char* kNoBreak = "\u00a0";
// "1.5 MiB", which is not broken; from 10,000 MiB on "9.8 GiB".
std::string mib(const std::optional<std::uint64_t>& bytes);
// "3.0 to 76.1 MiB", in the unit of the larger.
std::string mib_range(std::uint64_t least, std::uint64_t most, int digits = 1);
// `part` without its unit if `whole` has the same: "1.5" of "3.0 MiB".
std::string without_unit_of(const std::string& whole, std::string part);
std::string breakable(std::string text);  // with plain spaces
std::string count(const std::optional<std::uint64_t>& value);
std::string mebibytes(const std::optional<std::uint64_t>& bytes);  // "1.5", "12,345"
std::string percent(const std::optional<double>& ratio);           // "85.3%"
std::string figure_text(const cow::Figure& figure, const std::optional<double>& value);
std::string milliseconds(double ns);  // "0.12", "1.2", "12"
std::string errno_name(int error);    // "ENOMEM"
std::string signal_name(int signal);  // "SIGSEGV"
// "memory.max of /build (400.0 MiB)", whose limit is known.
std::string limit_text(const cow::OutOfMemory& why);
// " killed by SIGKILL from boss (PID 12)"; or ", out of memory", whose limit was reached, and who
// held most.
std::string killed_by(const cow::ProcessCopies& process);
std::string ending(const cow::ProcessCopies& process);  // "exit 0", "SIGTERM", "running"

// Returns " and 1234 more" for a sum of ended processes; else "".
std::string and_more(const cow::ProcessCopies& process);

// Returns the mean share of one CPU that the probes took; nullopt: unknown.
std::optional<double> probes_cpu(const cow::Measurement& measurement);

// Returns the sum of COPIED: "1.0 MiB", and whether some are unknown.
std::string total_copied_text(const std::vector<cow::ForkCopies>& copies);

}  // namespace cowshed::cowtop
