#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <functional>
#include <map>
#include <utility>

#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/check/culprits.h>
#include <cowshed/tools/cowtop/check/verdict.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

using cow::ForkCopies;
using cow::kPageSize;
using cow::ProcessCopies;

bool is_child(const ProcessCopies& process) { return process.role == cow::Role::child; }

std::string name_of_process(const ProcessCopies& process) {
  return fmt::format("{} {} ({})", is_child(process) ? "child" : "root", process.pid,
                     printable(process.comm));
}

std::uint64_t part_of(double ratio, std::uint64_t bytes) {
  constexpr double kRounding = 0.001;  // 5 % of 100 bytes are 5
  constexpr double kMost = 0x1p63;
  const double part = ratio * static_cast<double>(bytes) + kRounding;
  return static_cast<std::uint64_t>(std::floor(std::min(part, kMost)));
}

// How much of a limit a process has used, or why that is unknown.
struct Used {
  std::optional<std::uint64_t> bytes = std::nullopt;
  std::uint64_t of_bytes = 0;
  std::string why_not_known = {};
  bool is_missed = false;             // it may be over the limit, and nobody has looked
  std::uint64_t new_bytes = 0;        // the part that is new memory, whose culprits are those
  std::uint64_t unfaulted_bytes = 0;  // of new memory
  std::uint64_t perhaps_bytes = 0;    // of all processes together, it may be so much more
  bool shares = true;                 // else it cannot use more than the little before an exec
};

Used used(std::uint64_t bytes, std::uint64_t of_bytes = 0) { return {bytes, of_bytes, {}}; }
Used not_known(std::string why) { return {std::nullopt, 0, std::move(why)}; }

std::string why_no_copies(const ProcessCopies& process) {
  if (process.not_measured) return printable(*process.not_measured);
  if (!is_child(process)) return "the pagemap backend cannot tell what the root copied";
  return process.alive ? "its memory was not looked at"
                       : "it ended before its memory was looked at";
}

Used no_copies(const ProcessCopies& process) {
  return {std::nullopt, 0, why_no_copies(process), is_child(process)};
}

Used copied(const ProcessCopies& process, const ForkCopies& copies) {
  if (!copies.copied_pages) return no_copies(process);
  Used result = used(*copies.copied_bytes());
  if (cow::is_older(process)) {
    result.why_not_known =
        "it was forked earlier, and what it copied before is not known: reload the server";
    result.is_missed = true;
  }
  result.shares = is_child(process) ? !only_ran(process, copies) && !process.shares_memory
                                    : copies.forks > 0 || *result.bytes >= kLeastBytes;
  return result;
}

constexpr const char* kOnlyRan = "it only ran a program";

Used copied_of_shared(const ProcessCopies& process, const ForkCopies& copies) {
  // An exec ends the sharing: later copies are of the new program.
  if (!cow::goes_on(process)) return not_known(kOnlyRan);
  if (!process.shared_at_fork_bytes) return not_known("what it shared at its fork is not known");
  // Small processes, such as a shell's children, copy half of it for stacks and libraries.
  if (*copies.shared_bytes < kLeastBytes) return not_known("it shared less than 1 MiB at its fork");
  if (!copies.copied_pages) return no_copies(process);
  return used(*copies.copied_bytes(), *copies.shared_bytes);
}

Used new_memory(const ProcessCopies& process, const ForkCopies& copies) {
  if (!cow::goes_on(process)) return not_known(kOnlyRan);
  if (copies.new_bytes)
    return {.bytes = copies.new_bytes,
            .new_bytes = *copies.new_bytes,
            .unfaulted_bytes = copies.unfaulted_bytes};
  if (process.not_measured) return not_known(printable(*process.not_measured));
  return no_copies(process);
}

// Also of a child that runs a program.
Used alike_memory(const ProcessCopies& process, const ForkCopies& copies) {
  const std::uint64_t own = copies.most_own_bytes.value_or(0);
  if (!process.alike)
    return {.why_not_known = "it was not compared with another",
            .perhaps_bytes = own < kLeastBytes ? 0 : own};
  const cow::AlikeMemory& alike = *process.alike;
  return used(std::max(alike.same_address_bytes, alike.any_address_bytes.value_or(0)));
}

// The same.  One in its parent's memory has none.
Used own_memory(const ProcessCopies& process, const ForkCopies& copies) {
  if (process.shares_memory) return used(0);
  if (!copies.most_own_bytes) return {std::nullopt, 0, "nobody saw what it held", true};
  return {.bytes = copies.most_own_bytes,
          .new_bytes = std::min(copies.new_bytes.value_or(0), *copies.most_own_bytes)};
}

// Of a row that is the sum of several processes, one of them.
Used one_of(Used all, std::uint64_t processes) {
  if (all.bytes) *all.bytes /= processes;
  all.new_bytes /= processes;
  all.unfaulted_bytes /= processes;
  return all;
}

Used copied_of_object(const ProcessCopies& process, const std::string& name) {
  if (!process.copied_file_pages) return no_copies(process);
  if (process.objects) {
    std::uint64_t pages = 0;
    bool may_lack = false;
    for (const cow::ObjectCopies& object : *process.objects) {
      if (object.name == name) pages += object.copied_pages;
      may_lack = may_lack || (object.type == cow::kFurtherObjects && object.copied_pages > 0);
    }
    if (pages == 0 && may_lack) return not_known("it copied more objects than cowtop keeps apart");
    return used(pages * kPageSize);
  }
  const bool copied_arena =
      std::ranges::any_of(process.arenas, [](const auto& arena) { return arena.copied_pages > 0; });
  if (copied_arena) return not_known("of which objects its copies are was not seen");
  if (process.unreadable && *process.copied_file_pages > 0)
    return not_known(
        "its memory cannot be read, which takes its user, or CAP_SYS_PTRACE and "
        "CAP_DAC_READ_SEARCH");
  return used(0);
}

class Judge {
 public:
  Judge(const cow::Measurement& measurement, const Budget& budget, std::set<std::string> published)
      : measurement_(measurement),
        copies_(cow::fork_copies(measurement)),
        is_tree_(budget.per == Budget::Per::tree),
        published_(std::move(published)) {
    for (const ProcessCopies& process : measurement_.processes) {
      if (!process.objects) continue;
      for (const cow::ObjectCopies& object : *process.objects) published_.insert(object.name);
    }
    published_.erase("");
  }

  Verdict verdict(const Budget& budget, const std::optional<Baseline>& baseline) {
    const auto fixed = [](std::uint64_t bytes) { return [bytes](std::uint64_t) { return bytes; }; };
    if (budget.max_copied_bytes)
      hold({Limit::copied, "", !is_tree_, is_tree_}, fixed(*budget.max_copied_bytes), copied);
    if (budget.max_ratio) {
      const auto limit = [&](std::uint64_t shared) { return part_of(*budget.max_ratio, shared); };
      hold({Limit::ratio, "", true, is_tree_}, limit, copied_of_shared);
    }
    if (budget.max_new_bytes)
      hold({Limit::fresh, "", true, is_tree_}, fixed(*budget.max_new_bytes), new_memory);
    if (budget.max_own_bytes)
      hold({Limit::own, "", false, is_tree_}, fixed(*budget.max_own_bytes), own_memory);
    if (budget.max_alike_bytes)
      hold({Limit::alike, "", false, true}, fixed(*budget.max_alike_bytes), alike_memory);
    for (const Budget::Object& object : budget.objects) {
      if (!published_.contains(object.name)) {
        verdict_.not_measured.push_back(why_no_object(object.name));
        continue;
      }
      hold({Limit::object, object.name, false, is_tree_}, fixed(object.bytes),
           [&](const ProcessCopies& process, const ForkCopies& /*copies*/) {
             return copied_of_object(process, object.name);
           });
    }
    if (!budget.objects.empty()) note_copies_of_no_object();
    if (baseline && budget.max_growth) hold_to(*baseline, *budget.max_growth);
    for (const ProcessCopies& process : measurement_.processes)
      if (process.out_of_memory)
        verdict_.notes.push_back(name_of_process(process) + " was" + killed_by(process));
    note_losses();
    if (any_missed_ && !verdict_.is_over() && verdict_.not_measured.empty())
      verdict_.not_measured.emplace_back("some processes or copies were missed");
    return std::move(verdict_);
  }

 private:
  // A limit, and the processes that it applies to.
  struct Rule {
    Limit limit;
    std::string object;
    bool children_alone;
    bool together;
    std::string text() const {
      return std::string(name_of(limit)) + (object.empty() ? "" : " '" + printable(object) + "'");
    }
  };
  using LimitOf = std::function<std::uint64_t(std::uint64_t of_bytes)>;
  using UsedBy = std::function<Used(const ProcessCopies&, const ForkCopies&)>;

  void hold(const Rule& rule, const LimitOf& limit_of, const UsedBy& used_by) {
    std::optional<Used> sum;
    std::map<std::string, std::vector<std::string>> not_known_of;
    std::map<std::pair<std::string, bool>, std::size_t> children;  // of each name
    std::vector<Finding> parts;
    bool is_nobody_held = true;
    std::uint64_t perhaps = 0;
    const bool is_new = rule.limit == Limit::fresh || rule.limit == Limit::own;
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      const ProcessCopies& process = measurement_.processes[i];
      const bool ran = only_ran(process, copies_[i]);
      const std::size_t number = is_child(process) ? ++children[{process.comm, ran}] : 0;
      if (rule.children_alone && !is_child(process)) continue;
      Used of_it = used_by(process, copies_[i]);
      if (is_new && !rule.together) of_it = one_of(std::move(of_it), process.processes);
      if (of_it.bytes) {
        is_nobody_held = is_nobody_held && !of_it.shares;
        if (!sum) sum = used(0);
        *sum->bytes += *of_it.bytes;
        sum->of_bytes += of_it.of_bytes;
        sum->new_bytes += of_it.new_bytes;
        sum->unfaulted_bytes += of_it.unfaulted_bytes;
        parts.push_back({.kind = FindingKind::process,
                         .subject = name_of_process(process),
                         .bytes = *of_it.bytes});
      }
      if (!of_it.why_not_known.empty())
        not_known_of[of_it.why_not_known].push_back(name_of_process(process));
      any_missed_ = any_missed_ || of_it.is_missed || ended_unread(process);
      perhaps += of_it.perhaps_bytes;
      if (rule.together) continue;
      Held held = held_to(rule, of_it, limit_of(of_it.of_bytes));
      held.pid = process.pid;
      held.comm = process.comm;
      held.number = number;
      held.only_ran = ran;
      if (held.is_over()) {
        is_nobody_held = false;
        held.culprits =
            is_new ? culprits_of_new(measurement_, of_it.new_bytes, of_it.unfaulted_bytes)
                   : culprits_of(measurement_, process, copies_[i], *of_it.bytes, rule.object);
      }
      verdict_.held.push_back(std::move(held));
    }
    note_not_known(rule, not_known_of);
    const Used all = sum ? *sum : not_known(why_nothing(not_known_of));
    if (rule.together) {
      Held held = held_to(rule, all, limit_of(all.of_bytes));
      any_missed_ = any_missed_ || all.bytes.value_or(0) + perhaps > held.limit_bytes;
      if (held.is_over()) {
        is_nobody_held = false;
        held.culprits =
            is_new ? culprits_of_new(measurement_, all.new_bytes, all.unfaulted_bytes)
                   : culprits_of_all(measurement_, std::move(parts), *all.bytes, rule.object);
      }
      verdict_.held.push_back(std::move(held));
    }
    if (is_nobody_held)
      verdict_.not_measured.push_back(rule.text() + ": " + why_nothing(not_known_of));
  }

  void hold_to(const Baseline& baseline, double growth) {
    const auto limit = [&](std::uint64_t) { return part_of(1 + growth, baseline.copied_bytes); };
    hold({Limit::growth, "", false, true}, limit, copied);
    verdict_.held.back().of_bytes = baseline.copied_bytes;
    for (const std::string& note : baseline.notes) verdict_.notes.push_back(note);
    if (baseline.backend != measurement_.backend) {
      verdict_.notes.push_back(fmt::format(
          "the baseline is of the {} backend and this of the {} backend, which count differently",
          printable(baseline.backend), measurement_.backend));
    }
  }

  static Held held_to(const Rule& rule, const Used& used, std::uint64_t limit_bytes) {
    Held held;
    held.limit = rule.limit;
    held.object = rule.object;
    held.limit_bytes = limit_bytes;
    held.used_bytes = used.bytes;
    held.of_bytes = used.of_bytes;
    held.why_not_known = used.why_not_known;
    return held;
  }

  // Sampled, and not looked at in the last tenth of its life.
  bool ended_unread(const ProcessCopies& process) const {
    const double life_s = measurement_.since_begin_s(process.end_ns.value_or(0)) -
                          measurement_.since_begin_s(process.start_ns);
    return !measurement_.exact && is_child(process) && !process.alive &&
           measurement_.memory_age_s(process) > kAlikeWithin * life_s;
  }

  using NamesByReason = std::map<std::string, std::vector<std::string>>;

  void note_not_known(const Rule& rule, const NamesByReason& not_known_of) {
    constexpr std::size_t kMost = 5;
    for (const auto& [why, names] : not_known_of) {
      if (why == kOnlyRan) continue;  // a build has thousands
      std::string text = fmt::format("not held to {}: ", rule.text());
      for (std::size_t i = 0; i < names.size() && i < kMost; ++i)
        text += (i > 0 ? ", " : "") + names[i];
      if (names.size() > kMost) text += fmt::format(" and {} more", names.size() - kMost);
      text += ": ";
      text += why;
      verdict_.notes.push_back(std::move(text));
    }
  }

  std::string why_nothing(const NamesByReason& not_known_of) const {
    for (const auto& [why, names] : not_known_of)
      if (why != kOnlyRan) return why;
    if (measurement_.not_seen && measurement_.not_seen->at_least > 0)
      return "the processes below the root ended before they were seen";
    if (std::ranges::any_of(measurement_.processes, is_child))
      return "no process below the root goes on with its parent's memory: they ran programs";
    return "there was no process below the root";
  }

  std::string why_no_object(const std::string& name) const {
    constexpr std::size_t kMost = 10;
    std::string text = fmt::format("object '{}': no process was seen to publish one of that name",
                                   printable(name));
    if (published_.empty()) {
      const bool unreadable =
          std::ranges::any_of(measurement_.processes, &ProcessCopies::unreadable);
      return text + (unreadable ? ", and not all memory can be read, which takes its user, or "
                                  "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
                                : ", nor of any");
    }
    std::size_t shown = 0;
    const char* separator = "; there were ";
    for (const std::string& each : published_) {
      if (shown++ == kMost) return text + fmt::format(" and {} more", published_.size() - kMost);
      text += fmt::format("{}'{}'", std::exchange(separator, ", "), printable(each));
    }
    return text;
  }

  void note_copies_of_no_object() {
    struct Unnamed {
      std::uint64_t pages = 0;
      std::size_t processes = 0;
    };
    std::map<std::string, Unnamed> by_arena;
    for (const ProcessCopies& process : measurement_.processes) {
      if (!process.objects) continue;
      for (const cow::ArenaCopies& arena : process.arenas) {
        std::uint64_t of_objects = 0;
        for (const cow::ObjectCopies& object : *process.objects)
          if (object.arena == arena.name || object.type == cow::kFurtherObjects)
            of_objects += object.copied_pages;
        if (arena.copied_pages <= of_objects) continue;
        by_arena[arena.name].pages += arena.copied_pages - of_objects;
        ++by_arena[arena.name].processes;
      }
    }
    for (const auto& [name, unnamed] : by_arena) {
      verdict_.notes.push_back(fmt::format(
          "{} of arena '{}' that {} copied are of no object: of what "
          "lies between objects, or made after the last look",
          plural(unnamed.pages, "page"), printable(name), plural(unnamed.processes, "process")));
    }
  }

  // What a command left behind, as a daemon does, may copy more.
  void note_who_still_runs() {
    std::vector<std::string> names;
    for (const ProcessCopies& process : measurement_.processes) {
      if (!process.alive) continue;
      if (!is_child(process)) return;
      if (process.execs == 0) names.push_back(name_of_process(process));
    }
    if (names.empty()) return;
    any_missed_ = true;
    verdict_.notes.push_back(fmt::format(
        "the command has ended, but {}{} still runs: what it copies from here on is "
        "not known; measure it with -p",
        names.front(), names.size() == 1 ? "" : fmt::format(" and {} more", names.size() - 1)));
  }

  void note_losses() {
    if (measurement_.lost_events.value_or(0) > 0) {
      any_missed_ = true;
      verdict_.notes.push_back(fmt::format("{} lost: what would have been counted is not known",
                                           plural(*measurement_.lost_events, "event")));
    }
    note_who_still_runs();
    if (!measurement_.not_seen) return;
    const cow::ProcessesNotSeen& not_seen = *measurement_.not_seen;
    if (not_seen.at_least == 0 && not_seen.at_most == 0U) return;
    any_missed_ = any_missed_ || not_seen.at_least > 0;
    verdict_.notes.push_back(fmt::format(
        "{} ended unseen: the copies are not known",
        not_seen.at_most == not_seen.at_least ? plural(not_seen.at_least, "process")
        : not_seen.at_most
            ? fmt::format("{} to {}", not_seen.at_least, plural(*not_seen.at_most, "process"))
            : fmt::format("{} or more processes", not_seen.at_least)));
  }

  const cow::Measurement& measurement_;
  std::vector<ForkCopies> copies_;
  bool is_tree_;
  std::set<std::string> published_;  // names of objects that were seen
  bool any_missed_ = false;
  Verdict verdict_;
};

}  // namespace

bool Verdict::is_over() const { return std::ranges::any_of(held, &Held::is_over); }

Verdict verdict_on(const cow::Measurement& measurement, const Budget& budget,
                   const std::optional<Baseline>& baseline, std::set<std::string> published) {
  return Judge(measurement, budget, std::move(published)).verdict(budget, baseline);
}

}  // namespace cowshed::cowtop
