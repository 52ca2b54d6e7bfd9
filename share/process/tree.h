#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

// A process tree: a process and all that it starts, by fork or by exec.  Its members share a memfd,
// so that no two publications get the same number and no two arenas the same addresses.  So each
// arena can be mapped, and each reference used, in all of them.
//
// The memory has no lock, because a member may die at any instruction: each word is valid by
// itself. Each word has a checksum.  A word that a wild write has damaged is written anew: a unit
// of addresses is free then, and numbers continue far after those that this process knows.  The
// tree's id never changes, so it is in each member's own memory.  A hostile member that computes
// valid checksums can take addresses or numbers from others, but not their memory.
namespace cowshed::process_tree {

// Addresses for arenas.  The second are for when the first are not to be had.
constexpr std::array<arch::GibRange, 2> kRanges = {
    {{0x200040000000 >> 30U, 0xbfff}, arch::kOtherArenas}};
constexpr std::uint32_t kUnits = kRanges[0].count + kRanges[1].count;

struct Shared {
  // For each GiB of all ranges: word_of() the PID that claimed it; 0 if none has.
  std::array<std::atomic<std::uint64_t>, kUnits> holders;
  std::atomic<std::uint64_t> last_generation;  // a word_of()
  // Where the search in each range continues, so that units are used again as late as possible.
  std::array<std::atomic<std::uint32_t>, kRanges.size()> next_unit;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

// Guards the tree, the published layout and the registry.  Lock it after arenas' mutexes.  It is
// held during forks, from its first use on.
std::mutex& mutex();

// Makes this process the root of a tree, unless it is a member of one.  Also makes the published
// layout.  Errors: system_call.
Expected<void> start();

std::uint64_t id();  // half random, half the memfd's inode number; 0 if there is no tree
Shared& shared();    // of a process with a tree
int descriptor();    // the memfd; borrowed

// A value with a check, for this unit in `holders`, or for kGeneration.
constexpr std::uint32_t kGeneration = kUnits;
std::uint64_t word_of(std::uint32_t unit, std::uint32_t value);
std::optional<std::uint32_t> value_of(std::uint32_t unit, std::uint64_t word);  // none: damaged

// Of a publication.  No process of the tree has taken the same one, unless the word was damaged.
std::uint32_t take_generation();
std::uint32_t last_generation();                 // that was taken, as far as this process knows
void know_generation(std::uint32_t generation);  // another member has it

// Makes this process, in which nothing is of its own tree, a member of the one that has this memfd
// and `id`.  With mutex() held.  Errors: foreign_descriptor, system_call.
Expected<void> join(FileDescriptor memfd, std::uint64_t id, const std::string& who);

}  // namespace cowshed::process_tree
