#include <algorithm>
#include <fmt/format.h>
#include <vector>

#include <cowshed/tools/cowtop/analysis/findings.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/remarks.h>
#include <cowshed/tools/cowtop/report/head_lines.h>
#include <cowshed/tools/cowtop/report/screen_lines.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

// A root's copies are all of pages that it shares with its children.
std::string of_parent(const ProcessGroup& group) {
  std::string text = group.processes == 1
                         ? name_of(group)
                         : fmt::format("{} {} processes each", group.processes, name_of(group));
  text += " copied " + copied_each(group);
  if (group.is_between) return text + ", shared with its parent or with children";
  if (mean_copied(group) <= group.shared_bytes.value_or(0)) {
    return text + fmt::format(" of the {} shared with {}{}", shared_each(group),
                              group.forks == 1 ? "its child" : "children",
                              group.maps_data ? " and with files" : "");
  }
  return text + fmt::format(": some pages again after each of {}", plural(group.forks, "fork"));
}

std::string of_children(const ProcessGroup& group, const Summary& summary) {
  const bool is_one = group.processes == 1;
  std::string text = is_one ? name_of(group)
                            : fmt::format("{} {} processes each", group.processes, name_of(group));
  text += " copied ";
  const std::string copied = copied_each(group);
  if (group.has_executed)
    return text + copied + " before " + (is_one ? "it ran" : "they ran") + " that program";
  if (group.role == cow::Role::root && summary.ran > 0 && summary.sharers == 0)
    return text + copied + " while children had not yet run their programs";
  const std::uint64_t shared = group.shared_bytes.value_or(0);
  if (mean_copied(group) > shared) return text + copied;
  std::string part = whole_percent(static_cast<double>(mean_copied(group)) /
                                   static_cast<double>(std::max<std::uint64_t>(shared, 1)));
  if (!group.is_alike() || !group.shares_alike())
    part = whole_percent(group.least_part) + " to " + whole_percent(group.most_part);
  const std::string whole = shared_each(group);
  return text + fmt::format("{} of {} shared ({})", without_unit_of(whole, copied), whole, part);
}

std::string of_little(const Summary& summary) {
  const ProcessGroup* const most = summary.most_shared();
  if (most == nullptr) {
    const std::string who =
        summary.sharers == 1 ? "a child" : fmt::format("{} children", summary.sharers);
    const bool is_known = std::ranges::all_of(summary.groups, [](const ProcessGroup& group) {
      return group.role == cow::Role::root || group.has_executed || group.shared_bytes;
    });
    return is_known ? fmt::format("Hardly any memory was shared with {}.", who)
                    : fmt::format("How much memory is shared with {} is not known.", who);
  }
  const char* holds = summary.older > 0         ? "Since cowtop came, the sharing holds"
                      : summary.left_behind > 0 ? "So far, the sharing holds"
                                                : "The sharing holds";
  if (most->copied_bytes) return fmt::format("{}: {}.", holds, of_children(*most, summary));
  return fmt::format("{}: {} share up to {} each.", holds, name_of(*most), mib(most->shared_bytes));
}

std::string of_no_sharer(const cow::Measurement& measurement, const Summary& summary) {
  if (summary.processes == 1) {
    const cow::ProcessCopies& process = measurement.processes.front();
    const bool shares =
        process.execs == 0 && process.memory && process.memory->shared_bytes >= kLeastBytes;
    return fmt::format("{} forked no process in {:.1f} s{}", name_of(summary.groups.front()),
                       measurement.duration_s,
                       shares
                           ? fmt::format(". With those that forked it, it shares {}. Its parent is "
                                         "PID {}.",
                                         mib(process.memory->shared_bytes), process.ppid)
                           : ": it shares no memory, so none was copied.");
  }
  const auto any = [&](auto is) { return std::ranges::any_of(measurement.processes, is); };
  const bool ran =
      any([](const auto& each) { return each.role == cow::Role::child && each.execs > 0; });
  if (any([](const cow::ProcessCopies& each) { return each.shares_memory; }))
    return fmt::format(
        "No process has a copy of its parent's memory: those that were started {}ran "
        "in it (vfork, CLONE_VM).",
        ran ? "ran programs or " : "");
  if (!ran) return "No process was forked.";
  return "No process goes on with its parent's memory: those that were forked ran programs.";
}

std::string verdict(const cow::Measurement& measurement, const Summary& summary, FindingKind kind) {
  if (summary.groups.empty()) return "No process was measured.";
  if (kind == FindingKind::not_known) return "The copies are not known.";
  if (kind != FindingKind::copied) {
    const bool may_lack = measurement.not_seen && measurement.not_seen->at_most != 0U;
    return (may_lack ? "As far as was seen: " : "") + (kind == FindingKind::not_shared
                                                           ? of_no_sharer(measurement, summary)
                                                           : of_little(summary));
  }
  const ProcessGroup& top = summary.groups.front();
  std::string text = top.is_parent ? of_parent(top) : of_children(top, summary);
  const std::uint64_t others = summary.copied_bytes - *top.copied_bytes;
  const bool is_all = others < kLeastBytes || !is_part(others, summary.copied_bytes, kRestOfAll);
  if (top.processes == 1 && !is_all)
    text += fmt::format(", of {} in all", mib(summary.copied_bytes));
  if (top.processes > 1) {
    const std::string all = mib(is_all ? top.copied_bytes : summary.copied_bytes);
    text += fmt::format(": {}{} in all",
                        is_all ? "" : without_unit_of(all, mib(top.copied_bytes)) + " of ", all);
  }
  if (!summary.is_all_known) return text + ", and what is not known (-).";
  return text + (summary.are_parents_known ? "." : ", without the parent's.");
}

std::string reason_of(const cow::FailedAccess& failed) {
  const std::string mapping = failed.mapping.empty() ? "the mapping" : printable(failed.mapping);
  switch (failed.reason) {
    case AccessFailure::not_inherited: return "this memory was not inherited (MADV_DONTFORK)";
    case AccessFailure::not_mapped: return "nothing is mapped there";
    case AccessFailure::read_only: return mapping + " is read-only";
    case AccessFailure::no_access: return mapping + " may not be accessed";
    case AccessFailure::not_executable: return mapping + " is not executable";
    case AccessFailure::no_page: return mapping + " ends before it";
    case AccessFailure::none:
    case AccessFailure::other: break;
  }
  return "why is not known";
}

// The name of a template may fill a screen.
std::string shortened(std::string text) {
  constexpr std::size_t kMost = 100;
  if (text.size() > kMost) text = without_arguments(text);
  if (text.size() <= kMost) return text;
  const auto line = text.rfind(' ');  // FILE:LINE
  const bool has_line = line != text.npos && line > text.size() - kMost / 2;
  const std::string place = has_line ? text.substr(line) : "";
  return text.substr(0, kMost - place.size()) + "..." + place;
}

std::string crash_line(const ProcessGroup& group) {
  std::string line = group.processes == 1
                         ? fmt::format("{} (PID {}) was", name_of(group), group.pid)
                         : fmt::format("{} {} processes were", group.processes, name_of(group));
  line += group.killed_by;
  if (group.failed && group.failed->handled) {
    line += fmt::format(". Before, {} handled a failed access",
                        group.processes == 1 ? "it" : "the first");
  } else if (group.failed && group.processes > 1) {
    line += ", the first";
  }
  if (group.failed)
    line += fmt::format(" at 0x{:x}, in {}", group.failed->address, shortened(group.crash_place));
  if (!group.crash_caller.empty()) line += ", called from " + shortened(group.crash_caller);
  return lines_of(line + (group.failed ? ":" : ".")) +
         (group.failed ? "    " + reason_of(*group.failed) + ".\n" : "");
}

// Killed by what no server sends to its workers.
std::string crash_lines(const Summary& summary, const std::vector<Finding>& findings) {
  constexpr std::size_t kMost = 3;
  const std::vector<Finding> crashes = of_kind(findings, FindingKind::crash);
  std::string text;
  std::uint64_t left = 0;
  for (std::size_t i = 0; i < crashes.size(); ++i)
    if (i < kMost) text += crash_line(summary.groups[crashes[i].index]);
    else left += crashes[i].bytes;
  if (left > 0)
    text += fmt::format("{} more process{} crashed: see --all.\n", left, left == 1 ? "" : "es");
  return text;
}

// "The processes held up to 402.1 MiB at once (PSS)", without the full stop.
std::string pss_text(const cow::Measurement& measurement, const Summary& summary) {
  const bool is_one = summary.processes == 1;
  const std::string who = is_one ? "The process" : "The processes";
  if (!measurement.memory) return who + " ended before the memory was read (PSS -)";
  const cow::TreeMemory& memory = *measurement.memory;
  // What a command leaves behind, a forkserver say, does not hold all of it.
  const bool is_alive = summary.alive > summary.left_behind;
  const std::string peak =
      mib(summary.is_peak_known ? summary.most_peak_bytes : memory.peak_pss_bytes);
  const std::string range = mib_range(memory.peak_pss_bytes, summary.most_peak_bytes);
  std::string text;
  if (is_alive) {
    const bool are_all = summary.alive == summary.processes;
    text = is_one    ? who
           : are_all ? fmt::format("All {} processes", summary.processes)
                     : fmt::format("{} of {} processes", summary.alive, summary.processes);
    const std::string now = mib(memory.pss_bytes);
    text += fmt::format(
        " hold{} {} (PSS; up to {}{})", summary.alive == 1 ? "s" : "", now,
        without_unit_of(now, summary.is_peak_bounded && !summary.is_peak_known ? range : peak),
        summary.is_peak_known      ? ""
        : !summary.is_peak_bounded ? " or more, some ended unread"
                                   : ", some of it unread");
  } else {
    const std::string at_once = is_one ? "" : " at once";
    text = summary.is_peak_known ? fmt::format("{} held up to {}{} (PSS)", who, peak, at_once)
           : !summary.is_peak_bounded
               ? fmt::format("{} held at least {}{} (PSS; some ended unread)", who, peak, at_once)
               : fmt::format("{} held {}{} (PSS; some of it unread)", who, range, at_once);
  }
  if (memory.page_table_bytes > 0 &&
      is_part(memory.page_table_bytes, memory.peak_pss_bytes, kLittleOfAll))
    text += ", page tables " + without_unit_of(peak, mib(memory.page_table_bytes));
  if (memory.unread_processes > 0)
    text += fmt::format(", without {} that may not be read", memory.unread_processes);
  return text;
}

std::string memory_text(const cow::Measurement& measurement, const Summary& summary) {
  const std::string text = pss_text(measurement, summary);
  if (!measurement.memory_cgroup) return text + ".";
  return fmt::format("{}; {} cgroup held up to {}, with page cache and kernel memory.", text,
                     summary.processes == 1 ? "its" : "their",
                     mib(measurement.memory_cgroup->peak_bytes));
}

std::string accuracy_text(const cow::Measurement& measurement, const Summary& summary) {
  if (measurement.exact) {
    const std::uint64_t lost = measurement.lost_events.value_or(0);
    return lost == 0
               ? fmt::format("Exact (eBPF) for {:.1f} s, 0 events lost.", measurement.duration_s)
               : fmt::format("{} LOST (eBPF): counts are too low.", plural(lost, "event"));
  }
  std::string text = fmt::format("Sampled from /proc for {:.1f} s", measurement.duration_s);
  if (!summary.are_parents_known) text += "; a page counts for the child, whoever copied it";
  if (!measurement.not_seen) return text + ".";
  const auto [at_least, at_most] = *measurement.not_seen;
  if (at_least > 0) text += fmt::format(", at least {} ended unseen", plural(at_least, "process"));
  else if (!at_most) text += ", others may have ended unseen";
  else if (*at_most > 0)
    text += fmt::format(", up to {} ended unseen", plural(*at_most, "process"));
  return text + ".";
}

}  // namespace

std::string head_lines(const cow::Measurement& measurement, const Summary& summary,
                       const std::vector<Finding>& findings) {
  const FindingKind kind = findings.front().kind;
  const std::string crashes = crash_lines(summary, findings);
  const std::string answer = lines_of(verdict(measurement, summary, kind));
  const std::string memory = memory_text(measurement, summary);
  const std::string accuracy = accuracy_text(measurement, summary);
  const bool is_one_line = memory.size() + accuracy.size() + 2 <= kColumns;
  const bool was_short = std::ranges::any_of(
      summary.groups, [](const ProcessGroup& group) { return group.out_of_memory.has_value(); });
  std::string text =
      (was_short                     ? answer
       : kind == FindingKind::copied ? answer + crashes
                                     : crashes + answer) +
      (is_one_line ? memory + "  " + accuracy + "\n" : lines_of(memory) + lines_of(accuracy));
  for (const Finding& each : of_kind(findings, FindingKind::remark)) {
    // Nothing is more than what most processes hold by themselves.
    const bool is_answer = each.name == kOwnMemory && summary.is_mostly_new();
    text.insert(is_answer ? 0 : text.size(), lines_of(each.remark));
  }
  return was_short ? crashes + text : text;  // nothing is more than that
}

}  // namespace cowshed::cowtop
