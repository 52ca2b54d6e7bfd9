#pragma once

#include <string_view>

#include <cowshed/tools/cowtop/analysis/remedy.h>

// Whether a measurement supports a remedy, and what that saves: one function for each kind of
// evidence.  Remedy::when is one of them.
namespace cowshed::cowtop {

// The share of a cause of copies; null: it has none.
const Share* share_of(std::string_view cause, const Evidence& evidence);

// The copies for the remedy's cause that it stops.  gc.freeze() stops none that counts would make.
std::uint64_t bytes_against(const Remedy& remedy, const Evidence& evidence);

// The most of all copies that as many as `bytes` of the samples stand for, but once in 20 times.
std::uint64_t at_most(std::uint64_t bytes, std::uint64_t all,
                      const std::optional<cow::SampledCopies>& sampled);
// Copies by multiprocessing's pickling, in a call of put() or in the thread that a Queue sends by.
std::uint64_t pickling_bytes(const cow::Measurement& measurement);
// The children that lived at the same time.
std::uint64_t at_once(const Summary& summary);
// As `offer`, if it saves enough.
Offers worth_a_word(Offer offer);

// Copies for the cause are much of all.  of_first_run: what else its functions write, they may
// write once, too.  of_own_cause: also nobody asks who runs a database to
// change the database's code.  of_python_cause: with what is left to do after a freeze().
Offers of_cause(const Remedy& remedy, const Evidence& evidence);
Offers of_first_run(const Remedy& remedy, const Evidence& evidence);
Offers of_own_cause(const Remedy& remedy, const Evidence& evidence);
Offers of_python_cause(const Remedy& remedy, const Evidence& evidence);
// Much for the cause, and then each process copies for others, too.
Offers of_forks(const Remedy& remedy, const Evidence& evidence);
// No measurement supports it.
Offers of_none(const Remedy& remedy, const Evidence& evidence);
// Copies by the allocator: most by a call that frees a block, or by one that hands out a block that
// was free at the fork.
Offers of_freed_blocks(const Remedy& remedy, const Evidence& evidence);
Offers of_reused_blocks(const Remedy& remedy, const Evidence& evidence);

Offers of_exits(const Remedy& remedy, const Evidence& evidence);
// Relocations: most for libraries that children load, or else.
Offers of_dlopen(const Remedy& remedy, const Evidence& evidence);
Offers of_binding(const Remedy& remedy, const Evidence& evidence);
// Most of CODE has no names.
Offers of_missing_names(const Remedy& remedy, const Evidence& evidence);
Offers of_pickling(const Remedy& remedy, const Evidence& evidence);
// A parent copied most, while its children lived.
Offers of_parent(const Remedy& remedy, const Evidence& evidence);

// Copies that are as in the parent.
Offers of_unchanged(const Remedy& remedy, const Evidence& evidence);

// Of cure alone: an offer without a saving.
Offers of_equal_pages(const Remedy& remedy, const Evidence& evidence);
Offers of_many_arenas(const Remedy& remedy, const Evidence& evidence);
Offers of_own_memory(const Remedy& remedy, const Evidence& evidence);

}  // namespace cowshed::cowtop
