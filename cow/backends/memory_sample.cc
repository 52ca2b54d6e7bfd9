#include <algorithm>

#include <cowshed/base/clock.h>
#include <cowshed/cow/backends/memory_sample.h>

namespace cowshed::cow {

void add_mapping(MemorySample& sample, const Mapping& mapping, const AnonymousPages& here,
                 const std::vector<FrozenArena>& frozen) {
  const std::uint64_t own = here.own.bytes();
  const std::uint64_t shared = here.shared.bytes();
  sample.private_bytes += own;
  sample.shared_bytes += shared;
  const bool in_arena = std::ranges::find(frozen, &mapping, &FrozenArena::mapping) != frozen.end();
  // Of an arena, what is not anonymous is shared by its file.
  if (in_arena) sample.shared_bytes += mapping.bytes() - own - shared;
}

std::optional<MemorySample> finished(MemorySample sample) {
  if (sample.private_bytes + sample.shared_bytes == 0) return std::nullopt;
  sample.sampled_ns = monotonic_ns();
  return sample;
}

std::optional<MemorySample> sample_memory(const ProcFiles& proc, pid_t pid,
                                          const std::vector<Mapping>& mappings) {
  auto pages = ProcessPages::open(proc, pid);
  if (!pages) return std::nullopt;
  MemorySample sample;
  const auto frozen = frozen_arenas(proc, pid, mappings);
  for (const Mapping& mapping : mappings) {
    if (!mapping.can_be_copied()) continue;
    const auto here = pages->anonymous_pages_by_owner(mapping);
    if (!here || pages->is_gone()) return std::nullopt;
    add_mapping(sample, mapping, *here, frozen);
  }
  return finished(sample);
}

}  // namespace cowshed::cow
