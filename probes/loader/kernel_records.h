#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/probes/bpf/record.h>
#include <cowshed/probes/counts.h>
#include <cowshed/probes/loader/bpf_programs.h>

namespace cowshed {

struct KeyOrder {
  bool operator()(const cowshed_key& a, const cowshed_key& b) const {
    return a.start_ns != b.start_ns ? a.start_ns < b.start_ns : a.tgid < b.tgid;
  }
};

template <class Value>
using ByProcess = std::map<cowshed_key, Value, KeyOrder>;

// The sum of the counts of the live threads of one process.
struct LiveThreads {
  cowshed_counts counts = {};
  std::uint64_t pending = 0;
  std::uint64_t threads = 0;
  bool is_torn = false;  // the counts of a thread changed while they were read
  std::string comm;      // the leader's
};

// Returns the name of an arena's memfd as /proc/PID/maps has it, with \012 for a newline.  Like the
// kernel's field, it has at most 63 bytes.
std::string arena_name(const char (&field)[COWSHED_ARENA_NAME_BYTES]);

// Each reads the whole map, or runs the iterator once.  Even an empty map takes the kernel 0.7 ms,
// because it visits each bucket.  Errors: system_call.
Expected<ByProcess<cowshed_process>> read_processes(const Programs& programs);
Expected<ByProcess<LiveThreads>> read_live_threads(const Programs& programs);
Expected<ByProcess<std::vector<ArenaCount>>> read_arenas(const Programs& programs);

// Returns the current records of the known ones, without those that the map no longer has.
ByProcess<cowshed_process> look_up(const Programs& programs,
                                   const ByProcess<cowshed_process>& known);
ByProcess<std::vector<ArenaCount>> look_up(const Programs& programs,
                                           const ByProcess<std::vector<ArenaCount>>& known);

// Those of a process; `ended`: also removes them.
ForkCosts fork_costs_of(const Programs& programs, const cowshed_key& key, bool ended);

// Sets the roots for the iterator `adopt`.
Expected<void> put_roots(const Programs& programs, std::span<const int> pids);
// Removes them, and returns those that the iterator did not find.
std::vector<int> take_roots_not_found(const Programs& programs, std::span<const int> pids);

// Removes the record of an ended process and returns its last state, or `known` if it is already
// removed.
cowshed_process take_process(const Programs& programs, const cowshed_key& key,
                             const cowshed_process& known);
void forget_arenas(const Programs& programs, const cowshed_key& key,
                   const std::vector<ArenaCount>& arenas);

void add(cowshed_counts& sum, const cowshed_counts& part);

}  // namespace cowshed
