#include <cowshed/cow/clock.h>
#include <cowshed/cow/copy_sampler.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kMostOfAKind = 50;

}  // namespace

CopySampler::CopySampler(std::uint32_t period, const ProcFiles& proc)
    : binaries_(proc), spaces_(proc, binaries_), sites_(period) {
  if (auto decoder = StoreDecoder::open()) stores_.emplace(std::move(*decoder));
}

void CopySampler::add(const std::vector<CopySample>& samples,
                      const std::vector<ProcessCounts>& processes) {
  const std::uint64_t now = monotonic_ns();
  for (const ProcessCounts& process : processes) spaces_.update(process, now);
  for (const CopySample& sample : samples) {
    const CodeStack& code = sites_.add(sample, spaces_, binaries_);
    if (stores_) stores_->add(sample, code);
  }
  spaces_.forget_ended();
}

SampledCopies CopySampler::of(std::uint64_t process_id) {
  return sites_.of(process_id, symbols_, kMostOfAKind);
}

SampledCopies CopySampler::of_all() { return sites_.of_all(symbols_, kMostOfAKind); }

std::optional<std::vector<CopyPattern>> CopySampler::patterns_of(std::uint64_t process_id) {
  if (!stores_) return std::nullopt;
  return stores_->patterns(process_id, symbols_);
}

}  // namespace cowshed::cow
