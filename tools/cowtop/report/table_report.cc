#include <algorithm>
#include <fmt/format.h>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <cowshed/cow/figures.h>
#include <cowshed/tools/cowtop/report/screen_lines.h>
#include <cowshed/tools/cowtop/report/table_report.h>
#include <cowshed/tools/cowtop/text/causes.h>
#include <cowshed/tools/cowtop/text/container.h>
#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

using Row = std::vector<std::string>;

std::string unit_of(const cow::Figure& figure) {
  return figure.unit == cow::Unit::bytes ? " MiB" : "";
}

Row headings() {
  Row names = {"PID", "COMMAND"};
  for (const cow::Figure& each : cow::kFigures)
    if (!each.title.empty()) names.push_back(std::string(each.title) + unit_of(each));
  for (const cow::CountInfo& each : cow::kCounts)
    if (*each.column != '\0') names.emplace_back(each.column);
  return names;
}

Row row_of(const cow::Measurement& measurement, const cow::ProcessCopies& process,
           const cow::ForkCopies& copies) {
  const bool is_child = process.role == cow::Role::child;
  Row row = {fmt::format("{}", process.pid),
             (is_child ? "  " : "") + printable(process.name()) + and_more(process)};
  for (const cow::Figure& each : cow::kFigures)
    if (!each.title.empty())
      row.push_back(figure_text(each, each.of(measurement, process, copies)));
  for (const cow::CountInfo& each : cow::kCounts)
    if (*each.column != '\0') row.push_back(count(process.*each.count));
  return row;
}

// The indices of the processes.  What is not known comes last.
std::vector<std::size_t> most_copied_first(const std::vector<cow::ForkCopies>& copies) {
  std::vector<std::size_t> order(copies.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater<>(),
                           [&](std::size_t i) { return copies[i].copied_pages; });
  return order;
}

std::string heading(const cow::Measurement& measurement) {
  std::string text =
      fmt::format("cowtop: {} backend, {}; {} in {:.2f} s", printable(measurement.backend),
                  measurement.precision(), plural(measurement.process_count(), "process"),
                  measurement.duration_s);
  if (measurement.lost_events)
    text += fmt::format("; {} lost", plural(*measurement.lost_events, "event"));
  if (measurement.unsure_faults.value_or(0) > 0)
    text += fmt::format("; {} perhaps not in the right class",
                        plural(*measurement.unsure_faults, "fault"));
  std::uint64_t collapsed = 0;
  for (const cow::ProcessCopies& process : measurement.processes)
    collapsed += process.collapsed_pages.value_or(0);
  if (collapsed > 0) {
    text += fmt::format("; {} MiB copied without a fault, into huge pages",
                        mebibytes(collapsed * cow::kPageSize));
  }
  text += fmt::format("; own cost {} {}", measurement.overhead.events,
                      measurement.exact ? "events" : "samples");
  if (measurement.overhead.ns_per_event) {
    text += fmt::format(" of {:.0f} ns", *measurement.overhead.ns_per_event);
    if (const auto cpu = probes_cpu(measurement))
      text += fmt::format(", {:.1f}% of a CPU", *cpu * 100);
  }
  return text + "\n";
}

std::string not_seen_line(const cow::Measurement& measurement) {
  if (!measurement.not_seen) return {};
  const cow::ProcessesNotSeen& not_seen = *measurement.not_seen;
  const std::string count = !not_seen.at_most ? fmt::format("at least {}", not_seen.at_least)
                            : *not_seen.at_most == not_seen.at_least
                                ? fmt::format("{}", not_seen.at_least)
                                : fmt::format("{} to {}", not_seen.at_least, *not_seen.at_most);
  return "processes that ended before they were seen: " + count + "\n";
}

std::string merged_line(const cow::Measurement& measurement) {
  std::uint64_t merged = 0;
  std::size_t rows = 0;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (process.processes == 1) continue;
    merged += process.processes;
    ++rows;
  }
  if (rows == 0) return {};
  return fmt::format(
      "{} of the processes that ended, which copied least, are summed by place and name in {} "
      "(\"and more\")\n",
      merged, plural(rows, "row"));
}

// Of processes below the root that have children of their own.
std::string tree_lines(const cow::Measurement& measurement) {
  std::string text;
  const auto trees = cow::subtrees(measurement);
  for (std::size_t i = 0; i < trees.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    if (process.role == cow::Role::root || trees[i].processes == process.processes) continue;
    std::optional<std::uint64_t> bytes;
    if (trees[i].copied_pages) bytes = *trees[i].copied_pages * cow::kPageSize;
    text += fmt::format("tree of PID {} ({}): {} MiB copied by {} processes\n", process.pid,
                        printable(process.comm), mebibytes(bytes), trees[i].processes);
  }
  return text;
}

std::string container_lines(const cow::Measurement& measurement) {
  constexpr std::size_t kMost = 20;
  struct Processes {
    pid_t first = 0;
    std::uint64_t count = 0;
  };
  std::map<std::pair<std::string, std::string>, Processes> found;
  for (const cow::ProcessCopies& process : measurement.processes) {
    const Container container = container_of(process.cgroup);
    if (container.id.empty() && container.pod.empty()) continue;
    Processes& processes = found[{container.id, container.pod}];
    if (processes.count == 0) processes.first = process.pid;
    processes.count += process.processes;
  }
  std::string text;
  std::size_t shown = 0;
  for (const auto& [container, processes] : found) {
    if (++shown > kMost) continue;
    const auto& [id, pod] = container;
    text += fmt::format("container {}{}{}: PID {}", id, id.empty() || pod.empty() ? "" : " of ",
                        pod.empty() ? "" : "pod " + pod, processes.first);
    text += processes.count == 1 ? "\n" : fmt::format(" and {} more\n", processes.count - 1);
  }
  if (shown > kMost) text += fmt::format("{} more containers: see --json\n", shown - kMost);
  return text;
}

// What each still shares: an age of its own each, so no column.
std::string memory_lines(const cow::Measurement& measurement) {
  constexpr std::size_t kMost = 20;
  std::string text;
  std::size_t looked_at = 0;
  std::size_t missed = 0;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.memory) {
      const bool has_ended = process.end_ns && !process.shares_memory;
      if (has_ended && !process.unreadable && !process.not_measured) ++missed;
      continue;
    }
    if (++looked_at > kMost) continue;
    text += fmt::format(
        "PID {}: {} MiB still shared, {} MiB its own; sampled {:.1f} s before {}{}\n", process.pid,
        mebibytes(process.memory->shared_bytes), mebibytes(process.memory->private_bytes),
        measurement.memory_age_s(process), process.end_ns ? "its end" : "this report",
        cow::is_memory_stale(process) ? ": stale, it has copied more since" : "");
  }
  if (looked_at > kMost)
    text += fmt::format("{} more with memory still shared: see --json\n", looked_at - kMost);
  if (missed > 0)
    text += fmt::format("{} ended before {} memory was looked at\n", plural(missed, "process"),
                        missed == 1 ? "its" : "their");
  return text;
}

// Lines about copied pages: the most first, and of the many that are left their sum.
class PageLines {
 public:
  void add(std::uint64_t pages, std::string line) { lines_.push_back({pages, std::move(line)}); }

  std::string text(std::string_view what) {
    constexpr std::size_t kMost = 20;
    std::ranges::stable_sort(lines_, std::greater<>(), &Line::pages);
    std::string text;
    std::uint64_t left = 0;
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      if (i < kMost) text += lines_[i].text;
      if (i >= kMost) left += lines_[i].pages;
    }
    if (lines_.size() > kMost) {
      text += fmt::format("{} more {} with {} copied pages in all: see --json\n",
                          lines_.size() - kMost, what, left);
    }
    return text;
  }

 private:
  struct Line {
    std::uint64_t pages;
    std::string text;
  };
  std::vector<Line> lines_;
};

std::string arena_lines(const cow::Measurement& measurement) {
  PageLines lines;
  for (const cow::ProcessCopies& process : measurement.processes) {
    for (const cow::ArenaCopies& arena : process.arenas) {
      lines.add(arena.copied_pages,
                fmt::format("arena '{}' of {} MiB: {} copied by PID {}{}\n", printable(arena.name),
                            mebibytes(arena.bytes), plural(arena.copied_pages, "page"), process.pid,
                            and_more(process)));
    }
    for (const cow::ArenaCopies& file : process.files)
      lines.add(file.copied_pages,
                fmt::format("{}, mapped privately, {} MiB: {} copied by PID {}{}\n",
                            printable(file.name), mebibytes(file.bytes),
                            plural(file.copied_pages, "page"), process.pid, and_more(process)));
  }
  return lines.text("lines of arenas and files");
}

std::string object_lines(const cow::Measurement& measurement) {
  PageLines lines;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.objects) continue;
    for (const cow::ObjectCopies& object : *process.objects) {
      if (object.copied_pages == 0) continue;
      lines.add(object.copied_pages,
                fmt::format("object '{}' ({}) of arena '{}': {} copied by PID {}{}, sampled\n",
                            printable(object.name), printable(object.type), printable(object.arena),
                            plural(object.copied_pages, "page"), process.pid, and_more(process)));
    }
  }
  return lines.text("lines of objects");
}

std::string transfer_lines(const cow::Measurement& measurement) {
  std::string text;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.transfers) continue;
    for (const cow::SentObjects& sent : *process.transfers) {
      text += fmt::format(
          "{} '{}': {} of {}, {} MiB by {}, sent by PID {}{}, sampled\n", printable(sent.origin),
          printable(sent.name), plural(sent.messages, "message"), printable(sent.type),
          mebibytes(sent.bytes), printable(sent.kind), process.pid, and_more(process));
    }
  }
  return text;
}

// The site, what it called to copy, and who called it.
std::string site_lines(const cow::CodeSite& site) {
  constexpr std::size_t kMostFrames = 6;
  constexpr std::size_t kMostCalled = 3;
  constexpr const char* kIndent = "\n                ";
  std::string text =
      fmt::format("{:>12}  {}", fmt::format("~{}", site.estimated_copies), site_name(site));
  const std::size_t place = std::max<std::size_t>(site.frames.size(), 1) - 1;
  std::size_t shown = 1;
  for (std::size_t i = std::min(place, kMostCalled); i > 0; --i, ++shown)
    text += fmt::format("{}> {}", kIndent, frame_text(site.frames[i - 1]));
  std::size_t caller = place + 1;
  for (; caller < site.stack.size() && shown < kMostFrames; ++caller, ++shown)
    text += fmt::format("{}< {}", kIndent, frame_text(site.stack[caller]));
  if (site.truncated && shown < kMostFrames)
    text += fmt::format("{}< callers that were not seen", kIndent);
  return text + "\n";
}

// Of all processes, the hottest first.
std::string range_lines(const cow::Measurement& measurement) {
  constexpr std::size_t kMostRanges = 5;
  struct Hot {
    const cow::RangeCopies* range;
    pid_t pid;
    double copies_per_byte() const {
      return static_cast<double>(range->estimated_copies) /
             static_cast<double>(range->end - range->begin);
    }
  };
  std::vector<Hot> hottest;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.sampled) continue;
    for (const cow::RangeCopies& range : process.sampled->ranges)
      hottest.push_back({&range, process.pid});
  }
  std::ranges::stable_sort(hottest, std::greater<>(), &Hot::copies_per_byte);
  std::string text;
  for (std::size_t i = 0; i < hottest.size() && i < kMostRanges; ++i) {
    const cow::RangeCopies& range = *hottest[i].range;
    text +=
        fmt::format("range 0x{:x}-0x{:x} of '{}' in PID {}: ~{} copies, estimated\n", range.begin,
                    range.end, printable(range.mapping), hottest[i].pid, range.estimated_copies);
  }
  return text;
}

std::string sampled_lines(const cow::Measurement& measurement, std::string_view whose) {
  if (!measurement.sampling || !measurement.sampled) return {};
  constexpr std::size_t kMostSites = 10;
  constexpr std::size_t kMostMappings = 5;
  constexpr std::size_t kMostTypes = 10;
  const cow::SampledCopies& sampled = *measurement.sampled;
  std::string text;
  const cow::SamplingSummary& sampling = *measurement.sampling;
  std::string period = fmt::format("{}", sampling.period);
  if (sampling.longest_period > sampling.period)
    period += fmt::format(" to {}", sampling.longest_period);
  text += fmt::format(
      "code sites of {}, estimated from {}, 1 in {} copies; {} lost{}\n", whose,
      plural(sampled.samples, "sample"), period, plural(sampling.lost, "sample"),
      sampling.lost == 0 ? "" : ", of whatever copied fastest; a larger -c loses fewer");
  for (std::size_t i = 0; i < sampled.sites.size() && i < kMostSites; ++i)
    text += site_lines(sampled.sites[i]);
  for (std::size_t i = 0; i < sampled.mappings.size() && i < kMostMappings; ++i) {
    const cow::MappingCopies& mapping = sampled.mappings[i];
    text += fmt::format("mapping '{}': ~{} copies, estimated\n", printable(mapping.name),
                        mapping.estimated_copies);
  }
  for (std::size_t i = 0; i < sampled.types.size() && i < kMostTypes; ++i) {
    const cow::TypeCopies& type = sampled.types[i];
    text += fmt::format("Python objects of type '{}': ~{} copies, estimated\n",
                        printable(type.name), type.estimated_copies);
  }
  if (sampled.python_unread > 0) {
    text += fmt::format(
        "samples without their line, because their Python frames could not be read: {}\n",
        sampled.python_unread);
  }
  return text + range_lines(measurement);
}

std::uint64_t pattern_samples(const cow::ProcessCopies& process) {
  std::uint64_t samples = 0;
  if (process.patterns)
    for (const cow::CopyPattern& each : *process.patterns) samples += each.samples;
  return samples;
}

// "why: PID 7 (python3): 95% own writes: the program changes its data (the evidence), 5% unknown",
// of those processes that were sampled most.
// `with_evidence`: with the instruction that a cause was seen by.
std::string pattern_lines(const cow::Measurement& measurement, bool with_evidence) {
  constexpr double kWhole = 100;
  constexpr double kLeastShown = 0.005;
  constexpr std::size_t kMostProcesses = 10;
  std::vector<std::uint64_t> samples;
  for (const cow::ProcessCopies& process : measurement.processes)
    if (const std::uint64_t of_process = pattern_samples(process)) samples.push_back(of_process);
  std::ranges::sort(samples, std::greater<>());
  const std::uint64_t least = samples.size() > kMostProcesses ? samples[kMostProcesses - 1] : 1;
  std::size_t left_out = 0;
  std::string text;
  for (const cow::ProcessCopies& process : measurement.processes) {
    const std::uint64_t of_process = pattern_samples(process);
    if (of_process == 0) continue;
    if (of_process < least) {
      ++left_out;
      continue;
    }
    text +=
        fmt::format("why: PID {} ({}{}):", process.pid, printable(process.comm), and_more(process));
    const char* separator = " ";
    for (const cow::CopyPattern& each : *process.patterns) {
      if (each.share < kLeastShown) continue;
      text += fmt::format("{}{:.0f}% {}", separator, each.share * kWhole,
                          cause_in_words(each.pattern, each.library));
      if (with_evidence && *separator == ' ')
        text += fmt::format(" ({})", printable(each.evidence));
      separator = ", ";
    }
    text += "\n";
  }
  if (left_out != 0) {
    text += fmt::format("why: {} with fewer than {} samples each: see --json\n",
                        plural(left_out, "process"), least);
  }
  return text;
}

}  // namespace

std::string lacking_lines(const cow::Measurement& measurement, std::size_t most) {
  std::string text;
  std::size_t not_measured = 0;
  std::uint64_t unreadable = 0;
  for (const cow::ProcessCopies& process : measurement.processes) {
    unreadable += process.unreadable ? 1 : 0;
    if (!process.not_measured || ++not_measured > most) continue;
    text += lines_of("not measured: " + printable(*process.not_measured));
  }
  if (not_measured > most) text += fmt::format("not measured: {} more\n", not_measured - most);
  if (unreadable > 0) {
    text += lines_of(
        fmt::format("the memory of {} cannot be read: what {} still share{}, and of which objects "
                    "the copies are, is not known; run as {} user, or with CAP_SYS_PTRACE and "
                    "CAP_DAC_READ_SEARCH",
                    plural(unreadable, "process"), unreadable == 1 ? "it" : "they",
                    unreadable == 1 ? "s" : "", unreadable == 1 ? "its" : "their"));
  }
  std::size_t unread = 0;
  if (measurement.sampling)
    for (const std::string& file : measurement.sampling->unread)
      if (++unread <= most) text += fmt::format("not read: {}\n", printable(file));
  if (unread > most) text += fmt::format("not read: {} more\n", unread - most);
  return text;
}

std::string table_report(const cow::Measurement& measurement) {
  const Row names = headings();
  std::vector<Row> rows;
  std::vector<std::size_t> widths;
  for (const std::string& name : names) widths.push_back(name.size());
  const std::vector<cow::ForkCopies> copies = cow::fork_copies(measurement);
  const std::vector<std::size_t> order = most_copied_first(copies);
  for (const std::size_t process : order) {
    rows.push_back(row_of(measurement, measurement.processes[process], copies[process]));
    for (std::size_t i = 0; i < widths.size(); ++i)
      widths[i] = std::max(widths[i], static_cast<std::size_t>(live::columns_of(rows.back()[i])));
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
  std::string text = heading(measurement) + add_row(names, "END");
  for (std::size_t i = 0; i < rows.size(); ++i)
    text += add_row(rows[i], ending(measurement.processes[order[i]]));
  text += merged_line(measurement) + not_seen_line(measurement) + tree_lines(measurement);
  text += container_lines(measurement) + memory_lines(measurement) + lacking_lines(measurement) +
          arena_lines(measurement) + object_lines(measurement) + transfer_lines(measurement);
  text += sampled_lines(measurement, "all processes") + pattern_lines(measurement, true);
  return printable_lines(text + fmt::format("total copied: {}\n", total_copied_text(copies)));
}

std::string process_report(const cow::Measurement& measurement, const cow::ProcessCopies& process) {
  cow::Measurement alone;
  alone.taken_ns = measurement.taken_ns;
  alone.sampling = measurement.sampling;
  alone.sampled = process.sampled;
  alone.processes = {process};
  return printable_lines(container_lines(alone) + memory_lines(alone) + lacking_lines(alone) +
                         arena_lines(alone) + object_lines(alone) + transfer_lines(alone) +
                         pattern_lines(alone, false) + sampled_lines(alone, "this process"));
}

}  // namespace cowshed::cowtop
