#pragma once

// Room probes/loader: loads the eBPF programs and reads their counts.  May use base, probes,
// probes/bpf.

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

// The loaded and attached BPF programs with their maps: the only code that knows the generated
// skeleton.  Move-only; one thread at a time.
class Programs {
 public:
  static Expected<Programs> load(const SamplingOptions& sampling);
  Programs(Programs&&) noexcept;
  Programs& operator=(Programs&&) noexcept;
  ~Programs();

  int processes_map() const;
  int arenas_map() const;
  int roots_map() const;
  int samples_map() const;
  int sample_counts_map() const;
  const cowshed_losses& losses() const;  // written by the kernel at any time
  std::uint64_t slow_lookups() const;
  // How many entries were ever added to the two maps; each is there by the time it is counted.
  std::uint64_t processes_added() const;
  std::uint64_t arenas_added() const;
  // How often records in `processes` have changed; nothing while one changes.
  std::optional<std::uint64_t> record_changes() const;
  bool counts_splits() const;                // of huge pages
  bool counts_collapses() const;             // into huge pages
  std::span<const int> descriptors() const;  // of the programs that run on events
  Expected<cowshed_adoption> adopt(cowshed_adopt_mode mode);
  Expected<std::vector<cowshed_thread_record>> dump_threads() const;

 private:
  struct State;
  explicit Programs(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cowshed
