#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>

#include <cowshed/base/error.h>
#include <cowshed/share/descriptor.h>

// A process tree: a process with everything that it starts, by fork or by exec.  Its members share
// some memory, a memfd, so that no two publications get the same number and no two arenas the same
// addresses: each arena can be mapped, and each reference used, in all of them.
//
// Nobody locks it, and every word is right by itself: a member may die at any instruction.  What a
// hostile member writes there costs others their addresses or numbers, not their memory.
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
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t bytes;
  std::uint64_t id;
  std::atomic<std::uint32_t> last_generation;
  // Where to look for a free place next, in each range: used again as late as possible.
  std::array<std::atomic<std::uint32_t>, kRanges.size()> next_place;
  // By GiB, range after range: who has arenas there, or had when it died; 0: nobody.
  std::array<std::atomic<pid_t>, kPlaces> holders;
};
static_assert(std::atomic<pid_t>::is_always_lock_free);

// Makes this process the root of a tree, unless it is or descends from one.  With
// registry::mutex() held, as join().  Errors: system_call.
Expected<void> start();

std::uint64_t id();  // random; 0: of no tree
Shared& shared();    // there is one
int descriptor();    // the memfd; stays this process's

// Makes this process, in which nothing is of its own tree, a member of the one that has this memfd
// and `id`.  Errors: foreign_descriptor, system_call.
Expected<void> join(Descriptor memfd, std::uint64_t id, const std::string& who);

}  // namespace cowshed::process_tree
