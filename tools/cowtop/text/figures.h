#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <cowshed/cow/measurement.h>

// How the reports for people write figures and names.
namespace cowshed::cowtop {

inline constexpr double kMiB = 1024.0 * 1024.0;
inline constexpr const char* kUnknown = "-";  // a figure that the backend cannot know

// A command's name holds any bytes: no control characters must reach the terminal, nor half of a
// UTF-8 character.  Each such byte becomes '?'.
std::string printable(std::string_view text);

// "fill() fill.cc:12", or what else there is to say where it is.
std::string frame_text(const cow::Frame& frame);

// What every report calls the site: its place in the program.
std::string site_name(const cow::CodeSite& site);

std::string count(const std::optional<std::uint64_t>& value);
std::string mebibytes(const std::optional<std::uint64_t>& bytes);  // "1.5"
std::string percent(const std::optional<double>& ratio);           // "85.3%"
std::string ending(const cow::ProcessCopies& process);             // "exit 0", "SIGTERM", "running"

// "", or " and 1234 more" of a sum of several that have ended.
std::string and_more(const cow::ProcessCopies& process);

// As the reports show them.  nullopt also after an exec: the program that its parent's memory was
// shared with is gone, and with it the sharing.
std::optional<std::uint64_t> shown_at_fork(const cow::ProcessCopies& process);
std::optional<double> shown_ratio(const cow::ProcessCopies& process);

// Whether the process has copied so much since its memory was sampled that what it shared then and
// what it copied are more than it had at its fork.
bool is_memory_stale(const cow::ProcessCopies& process);

// The mean share of one CPU that the probes took; nullopt where it is not known.
std::optional<double> probes_cpu(const cow::Measurement& measurement);

// Of all processes: "1.0 MiB", and whether some are not known.
std::string total_copied_text(const cow::Measurement& measurement);

}  // namespace cowshed::cowtop
