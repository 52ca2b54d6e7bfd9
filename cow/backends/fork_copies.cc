#include <algorithm>

#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/fork_copies.h>
#include <cowshed/cow/process_tree.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kLittle = 1 << 20;
constexpr std::uint64_t kMuch = 16 << 20;  // more than a small process maps of files

std::uint64_t less(std::uint64_t all, std::uint64_t part) { return all - std::min(all, part); }

// The part of its sampled copies that a process made while its program ended, 0 to 1.
double part_at_exit(const ProcessCopies& process) {
  if (!process.patterns) return 0;
  const auto found = std::ranges::find(*process.patterns, kProgramExit, &CopyPattern::pattern);
  return found == process.patterns->end() ? 0 : found->share;
}

// Of the data of files, which all that map it share until they write to it.
std::uint64_t file_pages(const ProcessCopies& process) {
  std::uint64_t pages = 0;
  for (const ArenaCopies& file : process.files) pages += file.copied_pages;
  return pages;
}

// What the process and the file shared: a fork shared what was written before.
std::uint64_t shared_bytes(const ArenaCopies& file) {
  return less(file.bytes.value_or(0), file.written_bytes);
}

// The part of it that was still the file's at the last scan; without one, that was not copied.
std::uint64_t held_file_bytes(const ProcessCopies& process) {
  std::uint64_t bytes = 0;
  for (const ArenaCopies& file : process.files) {
    const std::uint64_t shared = shared_bytes(file);
    const std::uint64_t copied = less(file.copied_pages, file.copied_again_pages);
    const std::uint64_t not_copied = less(shared, copied * kPageSize);
    bytes += std::min(shared, file.held_bytes.value_or(not_copied));
  }
  return bytes;
}

// Copies of pages that some fork or a file shared, before an exec or after.
std::optional<std::uint64_t> shared_pages(const ProcessCopies& process) {
  const auto all = process.all_copied_pages();
  if (!all) return std::nullopt;
  std::uint64_t pages = *process.copied_anon_pages + process.copied_shared_file_pages.value_or(0) +
                        file_pages(process);
  for (const ArenaCopies& arena : process.arenas) pages += arena.copied_pages;
  return less(std::min(pages, *all), process.copied_merged_pages.value_or(0));
}

bool has_executed(const ProcessCopies& process) {
  return process.role == Role::child && process.execs > 0;
}

// The part of pages_with_exit() that its parent's sharing caused, if it has executed a program.
std::uint64_t pages_before_exec(const ProcessCopies& process) {
  return has_executed(process) ? process.copied_pages_before_exec.value_or(0) : 0;
}

// COPIED and exit_pages together.
std::optional<std::uint64_t> pages_with_exit(const ProcessCopies& process, bool has_forked) {
  if (process.shares_memory)
    return process.all_copied_pages() ? std::optional<std::uint64_t>(0) : std::nullopt;
  if (has_executed(process) && !has_forked) {
    auto pages = process.copied_pages_before_exec;
    if (pages) *pages += file_pages(process);
    return pages;
  }
  const auto pages = shared_pages(process);
  if (!pages) return std::nullopt;
  // The count before the exec is part of them, but for its first writes to files.
  return std::max(*pages, pages_before_exec(process));
}

// Copies by children in its memory: they stay in it.
std::vector<std::uint64_t> pages_by_sharers(const std::vector<ProcessCopies>& processes,
                                            const std::vector<std::size_t>& above) {
  std::vector<std::uint64_t> result(processes.size());
  for (std::size_t i = processes.size(); i-- > 0;)  // children come after their parents
    if (processes[i].shares_memory && above[i] != i)
      result[above[i]] += result[i] + shared_pages(processes[i]).value_or(0);
  return result;
}

void add_copied(ForkCopies& copies, const ProcessCopies& process, std::uint64_t by_sharers) {
  const auto all = pages_with_exit(process, copies.forks > 0);
  if (!all) return;
  // A program that a process ran before an exec did not end.
  copies.exit_pages =
      std::min(static_cast<std::uint64_t>(part_at_exit(process) * static_cast<double>(*all)),
               *all - pages_before_exec(process));
  copies.written_pages = *all - copies.exit_pages;
  const bool is_fork_seen = !has_executed(process) || copies.forks > 0;
  copies.copied_pages =
      copies.written_pages + (is_fork_seen && !process.shares_memory ? by_sharers : 0);
}

std::optional<std::uint64_t> shared_by_fork(const ProcessCopies& process,
                                            const ForkCopies& copies) {
  if (!goes_on(process) || process.shared_at_fork_bytes)
    return process.execs == 0 ? process.shared_at_fork_bytes : std::nullopt;
  if (process.shared_before_bytes) return process.shared_before_bytes;
  const auto copied = copies.copied_bytes();
  if (!process.memory || !copied) return std::nullopt;
  return process.memory->shared_bytes + *copied - file_pages(process) * kPageSize;
}

std::optional<std::uint64_t> shared_bytes(const ProcessCopies& process, const ForkCopies& copies) {
  const auto by_fork = shared_by_fork(process, copies);
  if (process.files.empty()) return by_fork;
  return by_fork.value_or(0) + file_bytes(process);
}

// A subshell of a script, say, which then executed a program that is much larger.
bool is_of_former_program(const ProcessCopies& child, const ForkCopies& copies,
                          const ProcessCopies& parent) {
  constexpr std::uint64_t kPart = 10;
  if (parent.execs < 2 || !parent.memory) return false;
  const std::uint64_t shared = copies.shared_bytes.value_or(0) / child.processes;
  const std::uint64_t all = parent.memory->shared_bytes + parent.memory->private_bytes;
  return shared < kLittle && shared < all / kPart;
}

// What a parent has beside its own figures.
struct Family {
  bool one_by_one = true;  // no child lived at the same time as another
  std::uint64_t last_end = 0;
};

// What it alone had when the measurement began.
std::uint64_t own_before(const ProcessCopies& process) {
  return less(process.resident_before_bytes.value_or(0), process.shared_before_bytes.value_or(0));
}

// The part of what it got at its fork, without its copies, that it had when its memory was last
// read: at most.
std::uint64_t held_at_look(const ProcessCopies& process, std::uint64_t copied) {
  if (!process.memory) return UINT64_MAX / 2;
  const std::uint64_t shared = process.memory->shared_bytes;
  const std::uint64_t all = shared + process.memory->private_bytes;
  const std::uint64_t own =
      own_before(process) + copied +
      less(process.zero_filled_pages.value_or(0), process.shared_memory_pages.value_or(0)) *
          kPageSize;
  // Pages that it was the last to share are its alone.
  return std::max(shared, less(all, own));
}

std::uint64_t undone_bytes(const ProcessCopies& process) {
  return process.memory ? process.memory->undone_bytes.value_or(0) : 0;
}

struct Kept {
  std::uint64_t least;
  std::uint64_t most;
};

// What `process` got at its fork, did not copy, and had not given back when its memory was last
// read, or at its end.  The look is too high if it has copied or allocated since.
Kept still_held(const ProcessCopies& process, std::uint64_t copied, std::uint64_t not_copied) {
  if (process.processes > 1) return {not_copied, not_copied};
  const std::uint64_t at_end = process.held_at_end_bytes.value_or(UINT64_MAX / 2);
  const std::uint64_t files = held_file_bytes(process);
  const std::uint64_t at_look = held_at_look(process, copied);
  const std::uint64_t fresh =
      std::min(process.touched_pages() * kPageSize, process.most_risen_bytes.value_or(UINT64_MAX));
  // It may have given copies and new memory back, too.
  std::uint64_t least = less(at_end, own_before(process) + copied + fresh);
  if (process.memory) {
    const std::uint64_t all = process.memory->shared_bytes + process.memory->private_bytes;
    const std::uint64_t copied_since = less(files + at_look, not_copied);
    least = std::max(least, less(at_look, less(all, at_end) + copied_since));
  }
  const std::uint64_t most = std::min({files + at_look, files + at_end, not_copied});
  return {std::min(files + least, most), most};
}

// `parent_shared`: what its parent shares with a parent in turn.
std::optional<std::uint64_t> still_shared(const ProcessCopies& process, const ForkCopies& copies,
                                          std::uint64_t parent_shared) {
  constexpr std::uint64_t kPart = 40;
  if (!copies.shared_bytes || !copies.copied_pages) return std::nullopt;
  const std::uint64_t shared = *copies.shared_bytes;
  const std::uint64_t copied = less(*copies.copied_bytes(), undone_bytes(process));
  std::uint64_t unsure = std::min(copied, copies.copied_for_children_bytes);
  if (copied > shared) return std::nullopt;
  std::uint64_t not_copied = shared - copied;
  if (copies.is_only_child && process.parent_copied_pages) {
    const std::uint64_t by_parent = std::min(not_copied, *process.parent_copied_pages * kPageSize);
    unsure += std::min(by_parent, parent_shared);
    not_copied -= by_parent;
  }
  const Kept kept = still_held(process, copied, not_copied);
  unsure += kept.most - kept.least;
  if (unsure > std::max(kLittle, shared / kPart)) return std::nullopt;
  return kept.least;
}

// The most new memory that it had at samples of it.
std::optional<std::uint64_t> most_new_bytes(const ProcessCopies& process) {
  if (!process.most_risen_bytes) return std::nullopt;
  return std::min(less(*process.most_risen_bytes, first_write_bytes(process)),
                  process.touched_pages() * kPageSize);
}

// Of one that ran before the measurement.
std::optional<std::uint64_t> new_since_begin(const ProcessCopies& process) {
  if (!process.resident_before_bytes || !process.memory || !process.zero_filled_pages)
    return std::nullopt;
  const MemorySample& memory = *process.memory;
  const std::uint64_t now = memory.private_bytes + memory.shared_bytes;
  const std::uint64_t at_end =
      process.arenas.empty() ? process.held_at_end_bytes.value_or(0) : 0;  // it lacks arenas
  const std::uint64_t grown =
      less(std::max(now, at_end), *process.resident_before_bytes + first_write_bytes(process));
  const std::uint64_t touched = process.touched_pages() * kPageSize;
  const std::uint64_t since = less(touched, memory.touched_pages * kPageSize);
  // It may have given older memory back meanwhile.
  const std::uint64_t risen =
      std::min(most_new_bytes(process).value_or(0), memory.private_bytes + since);
  const std::uint64_t held = std::max(grown + since, risen);
  // No write fault made the rest.  But an arena may be mapped anew.
  return grown >= touched + kLittle && process.arenas.empty() ? held : std::min(touched, held);
}

// What it got at its fork; nothing by an exec.  nullopt: not known.
std::optional<std::uint64_t> got_bytes(const ProcessCopies& process) {
  if (process.execs > 0) return 0;
  return process.shared_at_fork_bytes;
}

// Without what a child got: all was there at its fork, or before the measurement.
void set_own(ForkCopies& copies, const ProcessCopies& process) {
  copies.new_bytes = new_bytes(process);
  if (copies.new_bytes && !goes_on(process)) {
    const std::uint64_t before = process.resident_before_bytes.value_or(0);
    copies.new_bytes = less(*copies.new_bytes, less(copies.most_given_bytes, before));
  }
  if (process.alive && process.memory) {
    copies.own_bytes = process.memory->private_bytes;
  } else if (copies.new_bytes && copies.copied_pages) {
    // First writes to arenas and data are copies, too.
    const std::uint64_t first_writes = first_write_bytes(process);
    std::uint64_t both = 0;
    for (const auto* list : {&process.arenas, &process.files})
      for (const ArenaCopies& each : *list)
        both += less(each.copied_pages, each.copied_again_pages) * kPageSize;
    const std::uint64_t copied = less(*copies.copied_bytes(), std::min(both, first_writes));
    // A later fork shares copies again, and they are copied again.
    const std::uint64_t most = goes_on(process)
                                   ? copies.shared_bytes.value_or(copied) + own_before(process)
                                   : copies.most_given_bytes;
    const std::uint64_t sum = *copies.new_bytes + std::min(copied, most) + first_writes;
    // It may have given some back before it got others, or got pages as the last to share them.
    const std::uint64_t seen =
        copies.forks == 0 && process.memory ? process.memory->private_bytes : 0;
    copies.own_bytes = std::max(std::min(sum, process.most_resident_bytes.value_or(sum)), seen);
  }
  if (!copies.own_bytes) return;
  copies.most_own_bytes =
      std::max({*copies.own_bytes, own_before(process), most_new_bytes(process).value_or(0)});
}

// What the process has beside all that it touched.
std::uint64_t unfaulted_bytes(const ProcessCopies& process, const ForkCopies& copies) {
  constexpr std::uint64_t kPart = 10;
  if (!process.zero_filled_pages) return 0;
  const std::uint64_t held = copies.new_bytes.value_or(0);
  const std::uint64_t rest = less(held, process.touched_pages() * kPageSize);
  return rest / process.processes >= kLittle && rest >= held / kPart ? rest : 0;
}

}  // namespace

// What it had when it was last looked at, and what it touched since; or what it had at its end.
std::optional<std::uint64_t> new_bytes(const ProcessCopies& process) {
  if (process.shares_memory) return std::nullopt;
  if (ran_before(process)) return new_since_begin(process);
  const MemorySample memory = process.memory.value_or(MemorySample());
  // Also what no write fault made, as MAP_POPULATE does.
  const std::uint64_t got = got_bytes(process).value_or(UINT64_MAX / 2);
  const auto grown_to = [&](std::uint64_t held) {
    return less(held, got + first_write_bytes(process));
  };
  const std::uint64_t grown = grown_to(memory.private_bytes + memory.shared_bytes);
  const std::uint64_t at_end = grown_to(process.held_at_end_bytes.value_or(0));
  if (!process.zero_filled_pages || !process.all_copied_pages())
    return process.memory && got_bytes(process) ? std::optional(std::max(grown, at_end))
                                                : std::nullopt;
  const std::uint64_t copied = *process.all_copied_pages() * kPageSize;
  const std::uint64_t then = std::max(
      grown, std::min(less(memory.private_bytes, copied), memory.touched_pages * kPageSize));
  const std::uint64_t since = less(process.touched_pages(), memory.touched_pages) * kPageSize;
  // At its end it may have given all of it back.
  if (const auto most = most_new_bytes(process))
    return process.alive ? std::min(then + since, std::max(then, *most))
                         : std::max({then, at_end, *most});
  const bool is_known = process.memory || process.alive || since < kLittle;
  // It had more than it touched: of mlock(2), say.
  const bool has_more = goes_on(process) && !process.memory && !process.held_at_end_bytes &&
                        process.most_resident_bytes.value_or(0) > got + since + kMuch;
  return is_known && !has_more ? std::optional(std::max(then + since, at_end)) : std::nullopt;
}

std::optional<std::uint64_t> new_bytes_at_end(const ProcessCopies& process) {
  const auto got = got_bytes(process);
  if (!process.held_at_end_bytes || !got || process.shares_memory) return std::nullopt;
  const std::uint64_t copied = process.all_copied_pages().value_or(0) * kPageSize;
  const std::uint64_t kept = std::min(*got, copied + held_at_look(process, copied));
  return less(*process.held_at_end_bytes, kept + first_write_bytes(process));
}

std::uint64_t first_write_bytes(const ProcessCopies& process) {
  std::uint64_t again = process.copied_shared_file_pages.value_or(0);
  for (const ArenaCopies& file : process.files) again += file.copied_again_pages;
  return less(process.copied_file_pages.value_or(0), again) * kPageSize;
}

std::uint64_t file_bytes(const ProcessCopies& process) {
  std::uint64_t bytes = 0;
  for (const ArenaCopies& file : process.files) bytes += shared_bytes(file);
  return bytes;
}

bool goes_on(const ProcessCopies& process) {
  return process.role == Role::child && !process.shares_memory && process.execs == 0;
}

bool is_older(const ProcessCopies& process) {
  return goes_on(process) && !process.shared_at_fork_bytes && !process.not_measured;
}

bool ran_before(const ProcessCopies& process) {
  return is_older(process) || (process.role == Role::root && process.execs == 0);
}

bool is_memory_stale(const ProcessCopies& process) {
  const auto pages = process.all_copied_pages();
  if (!process.memory || !process.shared_at_fork_bytes || !pages || process.execs > 0) return false;
  const std::uint64_t copied = less(*pages * kPageSize, undone_bytes(process));
  // What was shared at the fork is approximate.
  return copied > kLittle &&
         process.memory->shared_bytes > less(*process.shared_at_fork_bytes, copied) + kLittle;
}

std::vector<ForkCopies> fork_copies(const Measurement& measurement) {
  const std::vector<ProcessCopies>& processes = measurement.processes;
  const std::vector<std::size_t> above = parents(processes);
  std::vector<ForkCopies> result(processes.size());
  std::vector<Family> families(processes.size());
  const std::vector<std::uint64_t> by_sharers = pages_by_sharers(processes, above);
  // What a child that goes on copied does not depend on its own children.
  for (std::size_t i = 0; i < processes.size(); ++i) {
    if (!goes_on(processes[i])) continue;
    add_copied(result[i], processes[i], by_sharers[i]);
    result[i].shared_bytes = shared_bytes(processes[i], result[i]);
  }
  for (std::size_t i = 0; i < processes.size(); ++i) {  // in order of start
    const ProcessCopies& child = processes[i];
    if (!goes_on(child) || above[i] == i ||
        is_of_former_program(child, result[i], processes[above[i]])) {
      continue;
    }
    ForkCopies& parent = result[above[i]];
    parent.forks += child.processes;
    // A row that is the sum of several stands for its mean.
    if (result[i].shared_bytes)
      parent.most_shared_with_child =
          std::max(parent.most_shared_with_child.value_or(0),
                   (*result[i].shared_bytes - file_bytes(child)) / child.processes);
    std::uint64_t given = parent.most_shared_with_child.value_or(0);
    for (const ArenaCopies& arena : child.arenas) given = less(given, arena.bytes.value_or(0));
    parent.most_given_bytes = std::max(parent.most_given_bytes, given);
    const auto all = pages_with_exit(processes[above[i]], true);
    const std::uint64_t most = all.value_or(0) - (all ? pages_before_exec(processes[above[i]]) : 0);
    if (measurement.exact)
      parent.copied_for_children_bytes +=
          child.parent_copied_pages.value_or(most + by_sharers[above[i]]) * kPageSize;
    Family& family = families[above[i]];
    family.one_by_one =
        family.one_by_one && child.processes == 1 && child.start_ns >= family.last_end;
    family.last_end = std::max(family.last_end, child.end_ns.value_or(measurement.taken_ns));
  }
  for (std::size_t i = 0; i < processes.size(); ++i) {
    if (!goes_on(processes[i])) {
      add_copied(result[i], processes[i], by_sharers[i]);
      result[i].shared_bytes = shared_bytes(processes[i], result[i]);
    }
    const ForkCopies& owner = result[above[i]];
    if (processes[i].shares_memory && owner.copied_pages > owner.written_pages)
      result[i].written_pages = shared_pages(processes[i]).value_or(0);
    set_own(result[i], processes[i]);
    if (measurement.lost_events.value_or(0) == 0)
      result[i].unfaulted_bytes = unfaulted_bytes(processes[i], result[i]);
    if (above[i] != i) result[i].is_only_child = families[above[i]].one_by_one;
  }
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const bool is_grandchild = above[i] != i && goes_on(processes[above[i]]);
    const auto parent_shared = is_grandchild ? result[above[i]].shared_bytes : std::nullopt;
    result[i].still_shared_bytes = still_shared(processes[i], result[i], parent_shared.value_or(0));
  }
  return result;
}

std::vector<Subtree> subtrees(const Measurement& measurement) {
  const std::vector<ProcessCopies>& processes = measurement.processes;
  const std::vector<ForkCopies> copies = fork_copies(measurement);
  const std::vector<std::size_t> above_each = parents(processes);
  std::vector<Subtree> result(processes.size());
  for (std::size_t i = 0; i < processes.size(); ++i)
    result[i] = {processes[i].processes, copies[i].copied_pages};
  // Children come after their parents.
  for (std::size_t i = processes.size(); i-- > 0;) {
    if (above_each[i] == i) continue;
    Subtree& above = result[above_each[i]];
    above.processes += result[i].processes;
    if (!result[i].copied_pages) continue;
    above.copied_pages = above.copied_pages.value_or(0) + *result[i].copied_pages;
  }
  return result;
}

}  // namespace cowshed::cow
