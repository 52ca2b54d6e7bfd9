#include <cowshed/cow/clock.h>
#include <cowshed/cow/copy_sampler.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kMostOfAKind = 50;

}  // namespace

CopySampler::CopySampler(std::uint32_t period, const ProcFiles& proc)
    : binaries_(proc), spaces_(proc, binaries_), sites_(period) {}

void CopySampler::add(const std::vector<CopySample>& samples,
                      const std::vector<ProcessCounts>& processes) {
  const std::uint64_t now = monotonic_ns();
  for (const ProcessCounts& process : processes) spaces_.update(process, now);
  for (const CopySample& sample : samples) sites_.add(sample, spaces_, binaries_);
  spaces_.forget_ended();
}

SampledCopies CopySampler::of(std::uint64_t process_id) {
  return sites_.of(process_id, symbols_, kMostOfAKind);
}

SampledCopies CopySampler::of_all() { return sites_.of_all(symbols_, kMostOfAKind); }

}  // namespace cowshed::cow
