#include <array>
#include <cerrno>
#include <fmt/format.h>
#include <map>

#include <cowshed/tools/cowtop/analysis/fork_evidence.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/remarks.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

struct Said {
  std::uint64_t bytes = 0;  // as those of a Finding
  std::uint64_t of_bytes = 0;
  std::string text = {};  // empty: nothing
};

Said exit_copies(const cow::Measurement& /*measurement*/, const Summary& summary) {
  if (summary.exit_bytes < kLeastBytes) return {};
  return {summary.exit_bytes, 0,
          fmt::format("Not counted here: some {} that were copied while programs ended: exit() "
                      "frees what they hold, _exit() does not.",
                      mib(summary.exit_bytes))};
}

Said file_writes(const cow::Measurement& /*measurement*/, const Summary& summary) {
  if (summary.file_bytes < kLeastBytes) return {};
  return {summary.file_bytes, 0,
          fmt::format("Not counted here: {} of first writes to private pages of files.",
                      mib(summary.file_bytes))};
}

Said merged_copies(const cow::Measurement& measurement, const Summary& /*summary*/) {
  std::uint64_t bytes = 0;
  for (const cow::ProcessCopies& process : measurement.processes)
    bytes += process.copied_merged_pages.value_or(0) * cow::kPageSize;
  if (bytes < kLeastBytes) return {};
  return {bytes, 0,
          fmt::format("Not counted here: {} of writes to pages that KSM had merged.", mib(bytes))};
}

Said before_exec(const cow::Measurement& /*measurement*/, const Summary& summary) {
  if (!summary.copy_before_exec()) return {};
  return {
      summary.before_exec_bytes, 0,
      fmt::format("Not counted here: {} that {} copied before {} ran {}.",
                  mib(summary.before_exec_bytes), plural(summary.ran, "process"),
                  summary.ran == 1 ? "it" : "they", summary.ran == 1 ? "a program" : "programs")};
}

// "load (app.py:3), in libsqlite3 (page cache)": the line that made most of what a group holds, and
// the library that touched most of it first, as far as they are known.
std::string maker_of(const ProcessGroup& group, const Summary& summary) {
  if (group.held_before.sum > group.held_new.sum) return {};  // nobody saw who made it
  const Share* line = summary.line_of(group);
  std::string text = line == nullptr ? "" : line->name;
  if (!is_part(group.held_new.sum, summary.new_bytes, kHalfOfAll)) return text;
  std::map<std::string_view, double> libraries;
  for (const Share& each : summary.new_causes) libraries[each.remark] += each.of_all;
  for (const auto& [library, part] : libraries)
    if (!library.empty() && part >= kHalfOfAll)
      text += fmt::format("{}{}", text.empty() ? "" : ", in ", library);
  return text;
}

// What processes hold beside what they still share: copies and new memory.
Said own_memory(const cow::Measurement& /*measurement*/, const Summary& summary) {
  if (!summary.has_new_memory()) return {};
  const ProcessGroup& group = *summary.largest_holders();
  const Sizes& copies = group.held_copies;
  const Sizes& all = group.held_own;
  const Sizes& given_back = group.given_back;
  // It hides growth from whoever only looks at the process's size.
  const bool gave_back = is_part(given_back.sum, group.held.sum, kMuchOfAll);
  const bool is_one = group.holders == 1;
  const bool is_each =
      !is_one && copies.are_alike() && all.are_alike() && (!gave_back || given_back.are_alike());
  const std::uint64_t parts = is_each ? group.holders : 1;
  const char* hold = !group.are_holders_alive ? "held up to" : is_one ? "holds" : "hold";
  const std::string own = mib(all.sum / parts);
  std::string text =
      fmt::format("{}{} {} {} of {} own: {} copied, {} new",
                  is_one ? printable(group.comm)
                         : fmt::format("{} {} processes", group.holders, printable(group.comm)),
                  is_each ? " each" : "", hold, own, is_one ? "its" : "their",
                  without_unit_of(own, mib(copies.sum / parts)),
                  without_unit_of(own, mib(group.held_new.sum / parts)));
  if (group.held_before.most >= kLeastBytes)
    text += fmt::format(", {} from before cowtop came",
                        without_unit_of(own, mib(group.held_before.sum / parts)));
  if (summary.new_causes.empty() && is_much(group.free_bytes, all.sum))
    text +=
        fmt::format(", {} free inside malloc", without_unit_of(own, mib(group.free_bytes / parts)));
  if (const std::string maker = maker_of(group, summary); !maker.empty()) text += ", by " + maker;
  if (gave_back)
    text += fmt::format("; {} gave back {} of what {} got", is_one ? "it" : "they",
                        mib(given_back.sum / parts), is_one ? "it" : "they");
  text += ".";
  if (summary.new_unknown > 0)
    text += fmt::format(" What is new in {} is not known.", plural(summary.new_unknown, "other"));
  return {all.sum, summary.most_peak_bytes, std::move(text)};
}

// Private memory that several processes hold byte for byte, as one copy for all could hold it.
Said alike(const cow::Measurement& measurement, const Summary& /*summary*/) {
  std::uint64_t processes = 0;
  std::uint64_t all = 0;
  std::uint64_t same = 0;
  std::uint64_t any = 0;
  std::uint64_t of_children = 0;
  std::uint64_t unchanged = 0;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.alike) continue;
    const cow::AlikeMemory& its = *process.alike;
    ++processes;
    all += its.private_bytes;
    same += its.same_address_bytes;
    any += its.any_address_bytes.value_or(its.same_address_bytes);
    if (its.unchanged_bytes) of_children += its.private_bytes;
    unchanged += its.unchanged_bytes.value_or(0);
  }
  if (!is_much(any, all) && !is_much(unchanged, of_children)) return {};
  std::string text =
      fmt::format("{} of {} that {} hold alone are alike, byte for byte",
                  without_unit_of(mib(all), mib(same)), mib(all), plural(processes, "process"));
  if (!are_alike(same, any)) text += fmt::format(", {} at any address", mib(any));
  if (is_much(unchanged, of_children))
    text += fmt::format("; {} were copied for nothing: they are as in the parent", mib(unchanged));
  return {any, all, text + "."};
}

Said frozen(const cow::Measurement& /*measurement*/, const Summary& summary) {
  if (summary.frozen_objects == 0) return {};
  return {summary.frozen_bytes, 0,
          fmt::format("Frozen by cowshed.freeze(): {}, {}.",
                      plural(summary.frozen_objects, "Python object"), mib(summary.frozen_bytes))};
}

Said older(const cow::Measurement& /*measurement*/, const Summary& summary) {
  if (summary.older == 0) return {};
  const bool is_one = summary.older == 1;
  std::string text =
      fmt::format("Not counted: what {}, forked before cowtop looked, and {} copied until then.",
                  is_one ? "the older child" : plural(summary.older, "older process"),
                  is_one ? "its parent" : "their parents");
  if (summary.older_bytes >= kLeastBytes)
    text += fmt::format(" {} {} of {} own from then: cowtop cannot tell copies from new memory.",
                        is_one ? "It has" : "They have", mib(summary.older_bytes),
                        is_one ? "its" : "their");
  return {summary.older_bytes, 0, std::move(text)};
}

Said left_behind(const cow::Measurement& /*measurement*/, const Summary& summary) {
  if (summary.left_behind == 0) return {};
  return {summary.left_behind, 0,
          fmt::format("{} still run{}: what is copied from here on is not counted.",
                      plural(summary.left_behind, "process"), summary.left_behind == 1 ? "s" : "")};
}

Said lost_samples(const cow::Measurement& measurement, const Summary& /*summary*/) {
  const std::uint64_t lost = measurement.sampling ? measurement.sampling->lost : 0;
  const std::uint64_t all = lost + (measurement.sampled ? measurement.sampled->samples : 0);
  if (lost == 0 || !is_part(lost, all, kLittleOfAll)) return {};
  return {lost, all,
          fmt::format("{} of {} samples were lost, of whatever copied fastest: its part of WHAT, "
                      "WHY, OBJECTS and CODE is too small.",
                      lost, all)};
}

Said python_unread(const cow::Measurement& measurement, const Summary& summary) {
  if (summary.python_unread < kLittleOfAll) return {};
  const std::uint64_t samples = measurement.sampled ? measurement.sampled->samples : 0;
  return {static_cast<std::uint64_t>(summary.python_unread * static_cast<double>(samples)), samples,
          fmt::format("{} of the samples lack their line: their Python frames could not be read.",
                      whole_percent(summary.python_unread))};
}

std::string error_text(int error) {
  switch (error) {
    case 0: return "for want of memory or of processes";
    case ENOMEM: return "ENOMEM (the kernel overcommits no more memory)";
    case EAGAIN: return "EAGAIN (a limit of processes)";
    default: return errno_name(error);
  }
}

// "redis-server forked 10 times, 66 ms each (longest 71): 4% of its time."
Said forks(const cow::Measurement& measurement, const Summary& /*summary*/) {
  const auto forkers = forkers_of(measurement);
  if (forkers.empty()) return {};
  const Forker* forker = &forkers.front();
  const ForkCosts& costs = forker->costs;
  if (costs.failed() > 0) {
    std::string errors;
    for (const ForkCosts::Failure& each : costs.failures)
      errors += (errors.empty() ? "" : ", ") + error_text(each.error);
    return {costs.failed(), costs.failed() + costs.forks(),
            fmt::format("{} of {} failed: {}.", plural(costs.failed(), "fork"),
                        printable(forker->comm), errors)};
  }
  if (!forker->is_slow()) return {};
  const std::string longest = milliseconds(static_cast<double>(costs.longest_ns));
  return {costs.forks(), 0,
          fmt::format("{} forked {}: {} of its time.", printable(forker->comm),
                      costs.forks() == 1
                          ? fmt::format("once, in {}{}ms", longest, kNoBreak)
                          : fmt::format("{} times, {}{}ms each (longest {})", costs.forks(),
                                        milliseconds(static_cast<double>(*costs.median_ns())),
                                        kNoBreak, longest),
                      whole_percent(forker->part_of_life()))};
}

// A lock that another thread holds at the fork is never released in the child.
Said threads(const cow::Measurement& measurement, const Summary& /*summary*/) {
  const auto forkers = forkers_of(measurement);
  const Forker* forker = with_threads(forkers);
  if (forker == nullptr) return {};
  return {forker->costs.beside_threads, forker->costs.forks(),
          fmt::format("{} forked {} beside {}: what locks these hold stays locked in the child.",
                      printable(forker->comm), plural(forker->costs.beside_threads, "time"),
                      plural(forker->costs.most_threads, "other thread"))};
}

// "2 children wait for ever in a lock that was held at their fork, as PID 312 (python3)."
Said stuck(const cow::Measurement& measurement, const Summary& /*summary*/) {
  const cow::ProcessCopies* first = nullptr;
  std::uint64_t count = 0;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.waits_for_ever) continue;
    if (first == nullptr) first = &process;
    ++count;
  }
  if (first == nullptr) return {};
  const std::string who =
      count == 1 ? "A child waits for ever" : fmt::format("{} children wait for ever", count);
  return {
      count, 0,
      fmt::format("{} in a lock that another thread of the parent held at the fork{} PID {} ({}).",
                  who, count == 1 ? ":" : ", as", first->pid, printable(first->comm))};
}

struct Kind {
  std::string_view name;
  int weight;
  Said (*say)(const cow::Measurement&, const Summary&);
};

constexpr std::array kKinds = {Kind{"exit_copies", 5, exit_copies},
                               Kind{"file_writes", 4, file_writes},
                               Kind{"merged_copies", 4, merged_copies},
                               Kind{"before_exec", 5, before_exec},
                               Kind{kOwnMemory, 9, own_memory},
                               Kind{"forks", 8, forks},
                               Kind{"forks_beside_threads", 3, threads},
                               Kind{"stuck_in_locks", 9, stuck},
                               Kind{"alike", 6, alike},
                               Kind{"frozen", 4, frozen},
                               Kind{"older", 8, older},
                               Kind{"left_behind", 8, left_behind},
                               Kind{"lost_samples", 4, lost_samples},
                               Kind{"python_unread", 3, python_unread}};

}  // namespace

std::vector<Remark> remarks_on(const cow::Measurement& measurement, const Summary& summary) {
  std::vector<Remark> remarks;
  for (const Kind& kind : kKinds)
    if (Said said = kind.say(measurement, summary); !said.text.empty())
      remarks.push_back({kind.name, kind.weight, said.bytes, said.of_bytes, std::move(said.text)});
  return remarks;
}

}  // namespace cowshed::cowtop
