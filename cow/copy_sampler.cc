#include <cowshed/cow/clock.h>
#include <cowshed/cow/copy_sampler.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kMostOfAKind = 50;
constexpr std::size_t kMostWaiting = 10'000;

}  // namespace

CopySampler::CopySampler(const ProcFiles& proc) : binaries_(proc), spaces_(proc, binaries_) {
  if (auto decoder = StoreDecoder::open()) stores_.emplace(std::move(*decoder));
}

void CopySampler::attribute(const CopySample& sample) {
  const CodeStack& code = sites_.add(sample, spaces_, binaries_);
  if (stores_) stores_->add(sample, code);
}

void CopySampler::add(const std::vector<CopySample>& samples,
                      const std::vector<ProcessCounts>& processes) {
  const std::uint64_t now = monotonic_ns();
  for (const ProcessCounts& process : processes) spaces_.update(process, now);
  const auto place = [this](const CopySample& sample) {
    const bool is_known = spaces_.knows(sample.process_id);
    if (is_known) attribute(sample);
    return is_known;
  };
  std::erase_if(waiting_, place);
  for (const CopySample& sample : samples) {
    if (!place(sample)) waiting_.push_back(sample);
  }
  if (waiting_.size() > kMostWaiting) attribute_waiting();
  spaces_.forget_ended();
}

// As of an unknown process.
void CopySampler::attribute_waiting() {
  for (const CopySample& sample : waiting_) attribute(sample);
  waiting_.clear();
}

SampledCopies CopySampler::of(std::uint64_t process_id, const CodeSites::Copies& copies) {
  attribute_waiting();
  return sites_.of(process_id, copies, symbols_, kMostOfAKind);
}

SampledCopies CopySampler::of_all(const CodeSites::Copies& copies) {
  attribute_waiting();
  return sites_.of_all(copies, symbols_, kMostOfAKind);
}

std::optional<std::vector<CopyPattern>> CopySampler::patterns_of(std::uint64_t process_id) {
  if (!stores_) return std::nullopt;
  attribute_waiting();
  return stores_->patterns(process_id, symbols_);
}

}  // namespace cowshed::cow
