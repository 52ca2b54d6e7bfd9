#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/tools/cowtop/table_report.h>

namespace cowshed::cowtop {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;
constexpr const char* kUnknown = "-";

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
  if (process.signal.value_or(0) != 0) {
    const char* name = ::sigabbrev_np(*process.signal);
    return name ? fmt::format("SIG{}", name) : fmt::format("signal {}", *process.signal);
  }
  if (process.exit_status) return fmt::format("exit {}", *process.exit_status);
  return "ended";
}

// Control characters in a command's name must not reach the terminal.
std::string printable(std::string_view text) {
  std::string result(text);
  std::replace_if(
      result.begin(), result.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return result;
}

using Row = std::array<std::string, 14>;

constexpr std::array<std::string_view, 14> kHeadings = {
    "PID",    "COMMAND", "SHARED MiB", "COPIED MiB", "COPIED", "ANON",   "FILE",
    "REUSED", "ZERO",    "FIRST",      "SPLIT",      "NOTIFY", "FAILED", "OTHER"};

Row row_of(const cow::ProcessCopies& process) {
  return {fmt::format("{}", process.pid),
          (process.role == cow::Role::child ? "  " : "") + printable(process.comm),
          mebibytes(process.shared_at_fork_bytes),
          mebibytes(process.copied_bytes()),
          percent(process.copied_ratio()),
          count(process.copied_anon_pages),
          count(process.copied_file_pages),
          count(process.reused_pages),
          count(process.zero_page_writes),
          count(process.zero_filled_pages),
          count(process.huge_splits),
          count(process.write_notify_faults),
          count(process.failed_faults),
          count(process.other_faults)};
}

std::string heading(const cow::Measurement& measurement) {
  std::string text =
      fmt::format("cowtop: {} backend, {}; {} process{} in {:.2f} s", measurement.backend,
                  measurement.exact ? "exact" : "sampled", measurement.processes.size(),
                  measurement.processes.size() == 1 ? "" : "es", measurement.duration_s);
  if (measurement.lost_events) text += fmt::format("; {} events lost", *measurement.lost_events);
  text += fmt::format("; own cost {} {}", measurement.overhead.events,
                      measurement.exact ? "events" : "samples");
  if (measurement.overhead.ns_per_event) {
    text += fmt::format(" of {:.0f} ns", *measurement.overhead.ns_per_event);
  }
  return text + "\n";
}

// What each still shares: an age of its own each, so no column.
std::string memory_lines(const cow::Measurement& measurement) {
  std::string text;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.memory) continue;
    text += fmt::format("PID {}: {} MiB still shared, {} MiB its own; sampled {:.1f} s before {}\n",
                        process.pid, mebibytes(process.memory->shared_bytes),
                        mebibytes(process.memory->private_bytes), measurement.memory_age_s(process),
                        process.end_ns ? "its end" : "this report");
  }
  return text;
}

std::string arena_lines(const cow::Measurement& measurement) {
  std::string text;
  for (const cow::ProcessCopies& process : measurement.processes) {
    for (const cow::ArenaCopies& arena : process.arenas) {
      text +=
          fmt::format("arena '{}' of {} MiB: {} pages copied by PID {}\n", printable(arena.name),
                      mebibytes(arena.bytes), arena.copied_pages, process.pid);
    }
  }
  return text;
}

std::string object_lines(const cow::Measurement& measurement) {
  std::string text;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.objects) continue;
    for (const cow::ObjectCopies& object : *process.objects) {
      if (object.copied_pages == 0) continue;
      text += fmt::format("object '{}' ({}) of arena '{}': {} pages copied by PID {}, sampled\n",
                          printable(object.name), printable(object.type), printable(object.arena),
                          object.copied_pages, process.pid);
    }
  }
  return text;
}

std::string transfer_lines(const cow::Measurement& measurement) {
  std::string text;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.transfers) continue;
    for (const cow::SentObjects& sent : *process.transfers) {
      text += fmt::format("{} '{}': {} messages of {}, {} MiB by {}, sent by PID {}, sampled\n",
                          printable(sent.origin), printable(sent.name), sent.messages,
                          printable(sent.type), mebibytes(sent.bytes), sent.kind, process.pid);
    }
  }
  return text;
}

std::string frame_text(const cow::Frame& frame) {
  std::string text = printable(frame.function.empty() ? "??" : frame.function);
  if (!frame.file.empty()) {
    const auto slash = frame.file.rfind('/');
    text += fmt::format(" {}:{}", printable(frame.file.substr(slash + 1)), frame.line);
  } else if (!frame.module.empty()) {
    const auto slash = frame.module.rfind('/');
    text += fmt::format(" ({}", printable(frame.module.substr(slash + 1)));
    text += frame.function.empty() ? fmt::format("+0x{:x})", frame.address) : ")";
  } else if (frame.function.empty()) {
    text = fmt::format("0x{:x}", frame.address);
  }
  return frame.inlined ? text + " (inlined)" : text;
}

// The site, what it called to copy, and who called it.
std::string site_lines(const cow::CodeSite& site, std::uint64_t all) {
  constexpr std::size_t kMostFrames = 6;
  constexpr double kWhole = 100;
  std::string text = fmt::format("{:>5.1f}%  {:>10}  ",
                                 kWhole * static_cast<double>(site.samples) /
                                     static_cast<double>(std::max<std::uint64_t>(all, 1)),
                                 fmt::format("~{}", site.estimated_copies));
  for (std::size_t i = 0; i < site.stack.size() && i < kMostFrames; ++i) {
    if (i > 0) text += "\n                      < ";
    text += frame_text(site.stack[i]);
  }
  return text + "\n";
}

std::string sampled_lines(const cow::Measurement& measurement) {
  if (!measurement.sampling || !measurement.sampled) return {};
  constexpr std::size_t kMostSites = 10;
  constexpr std::size_t kMostMappings = 5;
  const cow::SampledCopies& sampled = *measurement.sampled;
  std::string text = fmt::format(
      "code sites of all processes, estimated from {} samples, 1 in {} "
      "copies; {} samples lost\n",
      sampled.samples, measurement.sampling->period, measurement.sampling->lost);
  for (std::size_t i = 0; i < sampled.sites.size() && i < kMostSites; ++i) {
    text += site_lines(sampled.sites[i], sampled.samples);
  }
  for (std::size_t i = 0; i < sampled.mappings.size() && i < kMostMappings; ++i) {
    const cow::MappingCopies& mapping = sampled.mappings[i];
    text += fmt::format("mapping '{}': ~{} copies, estimated\n", printable(mapping.name),
                        mapping.estimated_copies);
  }
  return text;
}

// "why: PID 7 (python3): 95% reference count (the evidence), 3% garbage collector, 2% unknown"
std::string pattern_lines(const cow::Measurement& measurement) {
  constexpr double kWhole = 100;
  constexpr double kLeastShown = 0.005;
  std::string text;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.patterns || process.patterns->empty()) continue;
    text += fmt::format("why: PID {} ({}):", process.pid, printable(process.comm));
    const char* separator = " ";
    for (const cow::CopyPattern& each : *process.patterns) {
      if (each.share < kLeastShown) continue;
      text += fmt::format("{}{:.0f}% {}", separator, each.share * kWhole, each.pattern);
      if (*separator == ' ') text += fmt::format(" ({})", printable(each.evidence));
      separator = ", ";
    }
    text += "\n";
  }
  return text;
}

std::string diff_lines(const cow::Measurement& measurement) {
  std::string text;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.diff || process.diff->compared_pages == 0) continue;
    const cow::CopyDiff& diff = *process.diff;
    text += fmt::format(
        "diff: PID {} ({}): {} pages compared, {} bytes changed ({:.2f}%), {} pages unchanged",
        process.pid, printable(process.comm), diff.compared_pages, diff.changed_bytes,
        *diff.changed_ratio() * 100, diff.unchanged_pages);
    if (diff.changes > 0) {
      text += fmt::format("; {} of {} changes are {} bytes", diff.changes_of_width, diff.changes,
                          diff.width_bytes);
    }
    if (diff.changes_at_stride > 0) {
      text += fmt::format(", {} at a stride of {}", diff.changes_at_stride, diff.stride_bytes);
    }
    text += fmt::format("; took {:.1f} ms\n", static_cast<double>(diff.cost_ns) / 1e6);
  }
  return text;
}

}  // namespace

std::string table_report(const cow::Measurement& measurement) {
  std::vector<Row> rows;
  std::array<std::size_t, kHeadings.size()> widths{};
  for (std::size_t i = 0; i < widths.size(); ++i) widths[i] = kHeadings[i].size();
  std::uint64_t copied = 0;
  for (const cow::ProcessCopies& process : measurement.processes) {
    rows.push_back(row_of(process));
    for (std::size_t i = 0; i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], rows.back()[i].size());
    }
    copied += process.copied_bytes().value_or(0);
  }

  constexpr std::size_t kCommandColumn = 1;
  const auto add_row = [&](const auto& cells, std::string_view last) {
    std::string line;
    for (std::size_t i = 0; i < widths.size(); ++i) {
      line += i == kCommandColumn ? fmt::format("{:<{}}  ", cells[i], widths[i])
                                  : fmt::format("{:>{}}  ", cells[i], widths[i]);
    }
    return line + std::string(last) + "\n";
  };
  std::string text = heading(measurement) + add_row(kHeadings, "END");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    text += add_row(rows[i], ending(measurement.processes[i]));
  }
  text += memory_lines(measurement) + arena_lines(measurement) + object_lines(measurement) +
          transfer_lines(measurement);
  text += sampled_lines(measurement);
  text += pattern_lines(measurement) + diff_lines(measurement);
  return text + fmt::format("total copied: {:.1f} MiB\n", static_cast<double>(copied) / kMiB);
}

}  // namespace cowshed::cowtop
