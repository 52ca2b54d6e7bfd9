#pragma once

#include <cstdint>

struct btf;

namespace cowshed {

// Constants of the running kernel that a BPF program cannot have relocated, read from its BTF.
struct BtfConstants {
  // ___GFP_* masks.  Before 6.10 they are macros, hence the values of 6.1 here; since then
  // (772dd0342727) they are an enum, but one without a name.
  std::uint32_t gfp_movable = 0x8;
  std::uint32_t gfp_zero = 0x100;
  std::uint32_t gfp_write = 0x1000;
  std::uint32_t gfp_noretry = 0x10000;
  // Bytes from the per-CPU variable `runqueues` to `vm_event_states`; 0: unknown.
  std::int64_t vm_events_from_runqueue = 0;
  // Whether splits of huge pages can be counted.
  bool counts_splits = false;
  // The BTF ID of the function of all forks; 0: the kernel has none of that name.
  std::uint32_t kernel_clone = 0;
  // Whether events tell of an address space's per-CPU counters (since 6.6).
  bool has_events_of_memory = false;
  // Whether the kernel has the tracepoints of khugepaged and MADV_COLLAPSE.
  bool has_collapse_events = false;
  // Whether the event of a collapse has its order as an argument (since 7.2).
  bool has_collapse_order = false;
  // Whether a program may be preempted on most tracepoints, because these are under SRCU
  // (since 7.0: a46023d5616e).
  bool may_be_preempted = false;
};

// Reads them from the running kernel; returns the defaults if it cannot read its BTF.
BtfConstants read_btf_constants();
BtfConstants read_btf_constants(const btf& kernel);

}  // namespace cowshed
