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

// What the live threads of one process have counted, together.
struct LiveThreads {
  cowshed_counts counts = {};
  std::uint64_t pending = 0;
  std::string comm;  // the leader's
};

// Each reads the whole map, or runs the iterator, at one go.  A map takes the kernel 0.7 ms however
// little is in it: it looks into each of its buckets.  Errors: system_call.
Expected<ByProcess<cowshed_process>> read_processes(const Programs& programs);
Expected<ByProcess<LiveThreads>> read_live_threads(const Programs& programs);
Expected<ByProcess<std::vector<ArenaCount>>> read_arenas(const Programs& programs);

// What the map now says of those that are known; without those that it no longer has.
ByProcess<cowshed_process> look_up(const Programs& programs,
                                   const ByProcess<cowshed_process>& known);
ByProcess<std::vector<ArenaCount>> look_up(const Programs& programs,
                                           const ByProcess<std::vector<ArenaCount>>& known);

// What the iterator `adopt` is to take for roots.
Expected<void> put_roots(const Programs& programs, std::span<const int> pids);
// Takes them away again; those of them that it has not met.
std::vector<int> take_roots_not_found(const Programs& programs, std::span<const int> pids);

// Removes the records of an ended process; what its record said last.  Copies `known` where
// somebody else removed it.
cowshed_process take_process(const Programs& programs, const cowshed_key& key,
                             const cowshed_process& known);
void forget_arenas(const Programs& programs, const cowshed_key& key,
                   const std::vector<ArenaCount>& arenas);

void add(cowshed_counts& sum, const cowshed_counts& part);

}  // namespace cowshed
