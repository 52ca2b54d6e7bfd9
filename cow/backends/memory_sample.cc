#include <algorithm>

#include <cowshed/base/clock.h>
#include <cowshed/cow/arenas/published_layout.h>
#include <cowshed/cow/backends/memory_sample.h>
#include <cowshed/cow/language.h>

namespace cowshed::cow {

void read_names(const ProcFiles& proc, ProcessCopies& process) {
  const std::string cmdline = proc.cmdline(process.pid);
  if (std::string title = title_of(cmdline); !title.empty()) process.title = std::move(title);
  if (std::string script = script_of(cmdline, process.comm); !script.empty())
    process.script = std::move(script);
}

MemorySampler::MemorySampler(const ProcFiles& proc, pid_t pid, const std::vector<Mapping>& mappings)
    : frozen_(frozen_arenas(proc, pid, mappings)),
      settled_bytes_(cow::settled_bytes(proc, pid, mappings)) {
  sample_.merged_bytes = proc.merged_bytes(pid);
}

void MemorySampler::add(const Mapping& mapping, const AnonymousPages& here) {
  const std::uint64_t own = here.own.bytes();
  const std::uint64_t shared = here.shared.bytes();
  sample_.private_bytes += own;
  sample_.shared_bytes += shared;
  // Of an arena and of settled memory, what is not anonymous is shared by its file.
  if (std::ranges::find(frozen_, &mapping, &FrozenArena::mapping) != frozen_.end())
    sample_.shared_bytes += mapping.bytes() - own - shared;
  if (mapping.is_settled()) settled_bytes_ -= std::min(settled_bytes_, own + shared);
}

std::optional<MemorySample> MemorySampler::finish() const {
  MemorySample sample = sample_;
  sample.shared_bytes += settled_bytes_;
  if (sample.private_bytes + sample.shared_bytes == 0) return std::nullopt;
  sample.sampled_ns = monotonic_ns();
  return sample;
}

std::optional<MemorySample> sample_memory(const ProcFiles& proc, pid_t pid,
                                          const std::vector<Mapping>& mappings,
                                          FilePages& file_pages) {
  auto pages = ProcessPages::open(proc, pid);
  if (!pages) return std::nullopt;
  MemorySampler sampler(proc, pid, mappings);
  for (const Mapping& mapping : mappings) {
    if (!mapping.can_be_copied()) continue;
    const auto here = pages->anonymous_pages_by_owner(mapping);
    if (!here || pages->is_gone()) return std::nullopt;
    sampler.add(mapping, *here);
    if (mapping.has_file())
      file_pages[mapping.begin] = mapping.bytes() - here->own.bytes() - here->shared.bytes();
  }
  return sampler.finish();
}

}  // namespace cowshed::cow
