#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <sys/types.h>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

// A process tree: a process with everything that it starts, by fork or by exec.  Its members share
// some memory, a memfd, so that no two publications get the same number and no two arenas the same
// addresses: each arena can be mapped, and each reference used, in all of them.
//
// Nobody locks it, and every word is right by itself: a member may die at any instruction.  Each
// word carries a check, so that one which a wild write has hit counts as damaged and is written
// anew: a place is then free, and numbers go on far after those that this process knows.  What
// never changes, the tree's id, is not in there but in each member.  A member that is hostile, and
// computes the checks, costs others their addresses or numbers, not their memory.
namespace cowshed::process_tree {

// Where arenas go, in GiB.  The second is for ThreadSanitizer, which keeps the first for itself.
struct Range {
  std::uint32_t first;
  std::uint32_t count;
};
constexpr std::array<Range, 2> kRanges = {
    {{0x200040000000 >> 30U, 0xbfff}, {0x7e8000000000 >> 30U, 0x1fc}}};
constexpr std::uint32_t kPlaces = kRanges[0].count + kRanges[1].count;

struct Shared {
  // By GiB, range after range: word_of() who has arenas there, or had when it died; 0: nobody.
  std::array<std::atomic<std::uint64_t>, kPlaces> holders;
  std::atomic<std::uint64_t> last_generation;  // word_of() it
  // Where to look for a free place next, in each range: used again as late as possible.
  std::array<std::atomic<std::uint32_t>, kRanges.size()> next_place;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

// Guards the tree, the published layout and the registry.  Comes after the arenas' mutexes; held
// over forks from its first use on.
std::mutex& mutex();

// Makes this process the root of a tree, unless it is or descends from one; then it has a published
// layout, too.  Errors: system_call.
Expected<void> start();

std::uint64_t id();  // random, and half of it the memfd's inode number; 0: of no tree
Shared& shared();    // there is one
int descriptor();    // the memfd; stays this process's

// A value with a check, for this place in `holders`, or for kGeneration.
constexpr std::uint32_t kGeneration = kPlaces;
std::uint64_t word_of(std::uint32_t place, std::uint32_t value);
std::optional<std::uint32_t> value_of(std::uint32_t place, std::uint64_t word);  // none: damaged

// Of a publication.  No process of the tree has taken the same one, unless the word was damaged.
std::uint32_t take_generation();
std::uint32_t last_generation();                 // that was taken, as far as this process knows
void know_generation(std::uint32_t generation);  // another member has it

// Makes this process, in which nothing is of its own tree, a member of the one that has this memfd
// and `id`.  With mutex() held.  Errors: foreign_descriptor, system_call.
Expected<void> join(FileDescriptor memfd, std::uint64_t id, const std::string& who);

}  // namespace cowshed::process_tree
