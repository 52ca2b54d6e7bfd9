#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include <cowshed/cow/fork_copies.h>

// Every figure that is derived for a process, in one list.  JSON, `cowtop --wide`, the live view,
// the page, metrics and the glossary are made from it, and a test compares the schema with it.
// probes/count_list.h has the counts.
namespace cowshed::cow {

enum class Unit : std::uint8_t {
  bytes,
  count,
  ratio,
  seconds,
  nanoseconds
};  // the last is shown in ms

struct Figure {
  std::string_view name;   // of the field in JSON, as a path; empty: it has none
  std::string_view title;  // of its column; empty: it has none
  Unit unit;
  bool is_usual;            // a column of the live view and of narrow pages
  std::string_view metric;  // the sum over running processes; empty: there is none
  // The first sentence stands beside the column.
  std::string_view meaning;
  // nullopt: not known.
  std::optional<double> (*of)(const Measurement&, const ProcessCopies&, const ForkCopies&);
};

namespace internal {

inline std::optional<double> number(const std::optional<std::uint64_t>& value) {
  return value ? std::optional(static_cast<double>(*value)) : std::nullopt;
}

}  // namespace internal

#define COWSHED_FIGURE(expression)                                 \
  [](const Measurement& measurement, const ProcessCopies& process, \
     const ForkCopies& copies) -> std::optional<double> {          \
    (void)measurement, (void)process, (void)copies;                \
    return expression;                                             \
  }

// In the order of the columns.
inline constexpr std::array kFigures = {
    Figure{"shared_bytes", "SHARED", Unit::bytes, true, "",
           "Memory that it shared with its parent when it was forked.  The parent's resident "
           "anonymous memory and its frozen arenas.  And files of data of 1 MiB or more, no "
           "programs and no libraries, of which it wrote to private mappings: as far as it mapped "
           "them then.  For a process that "
           "ran before cowtop came: the memory that it shared then.  After an exec, which ends the "
           "sharing, only files.",
           COWSHED_FIGURE(internal::number(copies.shared_bytes))},
    Figure{"copied_bytes", "COPIED", Unit::bytes, true, "",
           "Memory that a fork or a file of data shared, and that it copied by writing to it.  "
           "Without first writes to programs and libraries, other copies after an exec and, as far "
           "as samples tell, copies "
           "while a program ends (see \"program exit\").  For a parent: what it wrote while a "
           "child shared it.",
           COWSHED_FIGURE(internal::number(copies.copied_bytes()))},
    Figure{"copied_pages", "", Unit::count, false, "", "COPIED, in pages.",
           COWSHED_FIGURE(internal::number(copies.copied_pages))},
    Figure{"copied_ratio", "COPIED %", Unit::ratio, false, "",
           "COPIED as a share of SHARED.  Above 1 if further forks shared pages again.",
           COWSHED_FIGURE(copies.copied_ratio())},
    Figure{"new_bytes", "NEW", Unit::bytes, false, "cowshed_new_bytes",
           "Memory that it touched first: neither copied, nor got at its fork.  Since its last "
           "exec; if it ran before cowtop came, since then.  Of a program, what children of its "
           "own got is not new.",
           COWSHED_FIGURE(internal::number(copies.new_bytes))},
    Figure{"own_bytes", "OWN", Unit::bytes, true, "cowshed_private_bytes",
           "Anonymous memory that no other process maps.  While the process runs, as last looked "
           "at; after its end, the most that it had at one time, as far as is known.",
           COWSHED_FIGURE(internal::number(copies.own_bytes))},
    Figure{"still_shared_bytes", "", Unit::bytes, false, "cowshed_still_shared_bytes",
           "The part of SHARED that it has neither copied nor given back.",
           COWSHED_FIGURE(internal::number(copies.still_shared_bytes))},
    Figure{"still_shared_ratio", "STILL SHARED", Unit::ratio, true, "",
           "The part of SHARED that it has neither copied nor given back.  If it is an only "
           "child, its parent has not copied it either.  Not known if the process copied some "
           "pages more than once, or copied memory that others also share.",
           COWSHED_FIGURE(copies.still_shared_ratio())},
    Figure{"", "", Unit::bytes, false, "cowshed_shared_at_fork_bytes",
           "SHARED of those processes whose STILL SHARED is known.",
           COWSHED_FIGURE(copies.still_shared_bytes ? internal::number(copies.shared_bytes)
                                                    : std::nullopt)},
    Figure{"peak.pss_bytes", "PEAK", Unit::bytes, false, "",
           "The most memory (PSS) that was read of it.",
           COWSHED_FIGURE(process.peak ? internal::number(process.peak->pss_bytes) : std::nullopt)},
    Figure{"peak.at_s", "AT s", Unit::seconds, false, "",
           "When PEAK was read, in seconds from the begin of the measurement.",
           COWSHED_FIGURE(process.peak
                              ? std::optional(measurement.since_begin_s(process.peak->sampled_ns))
                              : std::nullopt)},
    Figure{"memory.free_bytes", "FREE", Unit::bytes, false, "cowshed_free_bytes",
           "The part of OWN that the program has freed and malloc() of glibc or Python keeps.  In "
           "whole "
           "pages, as last looked at.",
           COWSHED_FIGURE(internal::number(process.memory.value_or(MemorySample()).free_bytes))},
    Figure{"alike.same_address_bytes", "ALIKE", Unit::bytes, false, "cowshed_alike_bytes",
           "The part of OWN that other measured processes hold byte for byte at the same address.  "
           "A page that n processes hold counts as (n-1)/n in each: the sum is what one copy for "
           "all would save.  As last compared.",
           COWSHED_FIGURE(
               process.alike ? std::optional(static_cast<double>(process.alike->same_address_bytes))
                             : std::nullopt)},
    Figure{"alike.unchanged_bytes", "UNCHANGED", Unit::bytes, false, "cowshed_unchanged_bytes",
           "The part of OWN that holds what its parent holds at the same address: copies that "
           "changed nothing.  As last compared.",
           COWSHED_FIGURE(process.alike ? internal::number(process.alike->unchanged_bytes)
                                        : std::nullopt)},
    Figure{"memory.merged_bytes", "MERGED", Unit::bytes, false, "cowshed_merged_bytes",
           "Memory that KSM has merged with equal pages, as last looked at.",
           COWSHED_FIGURE(internal::number(process.memory.value_or(MemorySample()).merged_bytes))},
    Figure{"memory.undone_bytes", "UNDONE", Unit::bytes, false, "cowshed_undone_bytes",
           "The part of COPIED that it has given back, as by cowshed run --undo: it shares those "
           "pages again, as last looked at.",
           COWSHED_FIGURE(internal::number(process.memory.value_or(MemorySample()).undone_bytes))},
    Figure{"", "", Unit::bytes, false, "cowshed_shared_bytes",
           "Resident memory that other processes also map, as last looked at.  What two processes "
           "share counts twice.",
           COWSHED_FIGURE(process.memory ? internal::number(process.memory->shared_bytes)
                                         : std::nullopt)},
    Figure{"", "", Unit::bytes, false, "cowshed_pss_bytes",
           "Memory (PSS), as last read: a page that n processes map counts as 1/n in each.",
           COWSHED_FIGURE(process.pss ? internal::number(process.pss->pss_bytes) : std::nullopt)},
    Figure{"", "", Unit::bytes, false, "cowshed_page_table_bytes",
           "The kernel's page tables, as last read.",
           COWSHED_FIGURE(process.pss ? internal::number(process.pss->page_table_bytes)
                                      : std::nullopt)},
    Figure{"fork_costs.forks", "FORKED", Unit::count, false, "",
           "How often it forked: by fork() and clone(), not by vfork() and posix_spawn().",
           COWSHED_FIGURE(process.fork_costs
                              ? std::optional(static_cast<double>(process.fork_costs->forks()))
                              : std::nullopt)},
    Figure{"fork_costs.median_ns", "FORK ms", Unit::nanoseconds, false, "",
           "How long a fork took: the median, within 3.2 %.  From the kernel's entry of fork() to "
           "its return in the parent.",
           COWSHED_FIGURE(process.fork_costs ? internal::number(process.fork_costs->median_ns())
                                             : std::nullopt)},
    Figure{"fork_costs.longest_ns", "LONGEST ms", Unit::nanoseconds, false, "",
           "How long the longest of its forks took.",
           COWSHED_FIGURE((process.fork_costs && process.fork_costs->forks() > 0)
                              ? std::optional(static_cast<double>(process.fork_costs->longest_ns))
                              : std::nullopt)},
    Figure{"fork_costs.failed", "FORK FAILED", Unit::count, false, "",
           "Its forks that failed, also by vfork() and posix_spawn().  Not those that a seccomp "
           "filter forbids.",
           COWSHED_FIGURE(process.fork_costs
                              ? std::optional(static_cast<double>(process.fork_costs->failed()))
                              : std::nullopt)},
};
#undef COWSHED_FIGURE

// "Memory that it touched first: neither copied, nor got at its fork."
constexpr std::string_view first_sentence(std::string_view meaning) {
  return meaning.substr(
      0, meaning.find(".  ") == meaning.npos ? meaning.size() : meaning.find(".  ") + 1);
}

}  // namespace cowshed::cow
