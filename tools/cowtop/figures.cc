#include <algorithm>
#include <csignal>
#include <cstring>
#include <fmt/format.h>

#include <cowshed/tools/cowtop/figures.h>

namespace cowshed::cowtop {

std::string count(const std::optional<std::uint64_t>& value) {
  return value ? fmt::format("{}", *value) : kUnknown;
}

std::string mebibytes(const std::optional<std::uint64_t>& bytes) {
  return bytes ? fmt::format("{:.1f}", static_cast<double>(*bytes) / kMiB) : kUnknown;
}

std::string percent(const std::optional<double>& ratio) {
  return ratio ? fmt::format("{:.1f}%", *ratio * 100) : kUnknown;
}

std::string ending(const cow::ProcessCopies& process) {
  if (process.alive) return "running";
  if (process.signal) {
    const char* name = ::sigabbrev_np(*process.signal);
    return name ? fmt::format("SIG{}", name) : fmt::format("signal {}", *process.signal);
  }
  if (process.exit_status) return fmt::format("exit {}", *process.exit_status);
  return "ended";
}

std::string and_more(const cow::ProcessCopies& process) {
  return process.processes == 1 ? "" : fmt::format(" and {} more", process.processes - 1);
}

std::optional<std::uint64_t> shown_at_fork(const cow::ProcessCopies& process) {
  return process.execs == 0 ? process.shared_at_fork_bytes : std::nullopt;
}

std::optional<double> shown_ratio(const cow::ProcessCopies& process) {
  return process.execs == 0 ? process.copied_ratio() : std::nullopt;
}

bool is_memory_stale(const cow::ProcessCopies& process) {
  constexpr std::uint64_t kRounding = 1 << 20;  // AT FORK is approximate
  const auto at_fork = shown_at_fork(process);
  const auto copied = process.copied_bytes();
  if (!process.memory || !at_fork || !copied) return false;
  return *copied > kRounding &&
         process.memory->shared_bytes > *at_fork - std::min(*at_fork, *copied) + kRounding;
}

std::size_t width(std::string_view printable_text) {
  return static_cast<std::size_t>(
      std::count_if(printable_text.begin(), printable_text.end(),
                    [](unsigned char c) { return (c & 0xc0) != 0x80; }));
}

std::optional<double> probes_cpu(const cow::Measurement& measurement) {
  constexpr double kNsPerSecond = 1e9;
  if (!measurement.overhead.ns_per_event || measurement.duration_s <= 0) return std::nullopt;
  return static_cast<double>(measurement.overhead.events) * *measurement.overhead.ns_per_event /
         kNsPerSecond / measurement.duration_s;
}

std::string total_copied_text(const cow::Measurement& measurement) {
  std::uint64_t bytes = 0;
  std::size_t known = 0;
  for (const cow::ProcessCopies& process : measurement.processes) {
    bytes += process.copied_bytes().value_or(0);
    known += process.copied_bytes() ? 1 : 0;
  }
  if (known == 0) return kUnknown;
  const bool is_all = known == measurement.processes.size();
  return mebibytes(bytes) + (is_all ? " MiB" : " MiB, and what is not known (-)");
}

}  // namespace cowshed::cowtop
