#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

// What cowtop takes for little, much and alike: X(name, value, sentence).  No other file of
// tools/cowtop has such a limit, and docs/reference/cowtop.md quotes each sentence: a test
// compares.
#define COWSHED_JUDGEMENTS(X)                                                                    \
  X(kLeastBytes, std::uint64_t{1} << 20U, "Less than 1 MiB is not worth a word.")                \
  X(kMuchOfAll, 0.2, "Much is a fifth of all.")                                                  \
  X(kAlikeWithin, 0.1, "Figures are alike if they differ by at most a tenth, or 1 MiB.")         \
  X(kLittleOfAll, 0.01, "Little is a hundredth of all.")                                         \
  X(kRestOfAll, 0.02, "The rest is not worth a word if it is a 50th of all.")                    \
  X(kHalfOfAll, 0.5, "Most is half of all.")                                                     \
  X(kShownOfAll, 0.05, "A row or a culprit has at least a 20th of all.")                         \
  X(kLeastNew, std::uint64_t{16} << 20U, "New memory is worth a word from 16 MiB on.")           \
  X(kLeastHeld, std::uint64_t{512} << 10U, "A process holds new memory from half a MiB on.")     \
  X(kBeforeExec, std::uint64_t{128} << 10U, "A child that runs a program copies up to 128 KiB.") \
  X(kPageTables, std::uint64_t{256} << 10U, "A small process has up to 256 KiB of page tables.") \
  X(kLeastTables, std::uint64_t{4} << 20U, "Page tables are worth a word from 4 MiB on.")        \
  X(kLongForkMs, 10.0, "A fork of 10 ms is long.")                                               \
  X(kTablesMs, 2.0, "To copy 1 MiB of page tables takes 2 ms or more.")                          \
  X(kManyThreads, 3, "Arenas of malloc may hold much from 3 threads on.")                        \
  X(kLeastHeap, std::uint64_t{16} << 20U, "Arenas of malloc may hold much from 16 MiB on.")      \
  X(kFrozenFrom, std::uint64_t{64} << 20U, "cowshed run freezes processes of 64 MiB or more.")   \
  X(kHelpsFrom, 0.05, "A remedy of cure helps from a 20th of the peak on.")                      \
  X(kPeriodsUnseen, std::uint64_t{3},                                                            \
    "Copies of three sampling periods are without a sample "                                     \
    "once in 20 times.")

namespace cowshed::cowtop {

#define COWSHED_JUDGEMENT(name, value, sentence) inline constexpr auto name = value;
COWSHED_JUDGEMENTS(COWSHED_JUDGEMENT)
#undef COWSHED_JUDGEMENT

// Whether it is at least a part of all, as of kMuchOfAll.
constexpr bool is_part(std::uint64_t bytes, std::uint64_t all, double part) {
  return static_cast<double>(bytes) >= part * static_cast<double>(all);
}
constexpr bool is_much(std::uint64_t bytes, std::uint64_t all) {
  return bytes >= kLeastBytes && is_part(bytes, all, kMuchOfAll);
}
// Whether much of the most is in doubt.
constexpr bool is_sure(std::uint64_t least, std::uint64_t most) {
  return !is_part(most - std::min(least, most), most, kMuchOfAll);
}
// Whether a reader would call figures of the two sizes the same.
constexpr bool are_alike(std::uint64_t least, std::uint64_t most) {
  return most - least <= kLeastBytes ||
         static_cast<double>(most - least) <= kAlikeWithin * static_cast<double>(most);
}

}  // namespace cowshed::cowtop
