#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/probes/bpf/record.h>
#include <cowshed/probes/counts.h>
#include <cowshed/probes/samples.h>

namespace cowshed {

// The loaded and attached BPF programs with their maps.  Only this class uses the generated
// skeleton. Move-only.  One thread at a time.
class Programs {
 public:
  static Expected<Programs> load(const SamplingOptions& sampling);
  Programs(Programs&&) noexcept;
  Programs& operator=(Programs&&) noexcept;
  ~Programs();

  int processes_map() const;
  int arenas_map() const;
  int fork_costs_map() const;
  int roots_map() const;
  bool takes_samples() const;
  int samples_map() const;
  int alarms_map() const;
  int sample_counts_map() const;
  int interpreters_map() const;
  const cowshed_losses& losses() const;  // written by the kernel at any time
  std::uint64_t slow_lookups() const;
  cowshed_memory memory(std::uint64_t id) const;  // in its slot, perhaps another's
  // The number of entries ever added to each map.  An entry is added before it is counted.
  std::uint64_t processes_added() const;
  std::uint64_t arenas_added() const;
  // The number of changes to records in `processes`; nullopt during a change.
  std::optional<std::uint64_t> record_changes() const;
  bool counts_splits() const;     // of huge pages
  bool counts_collapses() const;  // into huge pages
  bool counts_forks() const;
  bool may_be_preempted() const;             // on this kernel
  std::span<const int> descriptors() const;  // of the programs that run on events
  // Of those that other tasks may make miss a run which nothing else shows.  An interrupt, or a
  // fault of the program itself, makes it miss a run that is no event of a tracked task.
  std::span<const int> must_not_miss() const;
  Expected<cowshed_adoption> adopt(cowshed_adopt_mode mode);
  Expected<std::vector<cowshed_thread_record>> dump_threads() const;

 private:
  struct State;
  explicit Programs(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cowshed
