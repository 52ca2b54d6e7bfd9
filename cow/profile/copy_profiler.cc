#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/cow/language.h>
#include <cowshed/cow/profile/copy_profiler.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kMostUnknown = 10'000;
constexpr std::size_t kAttributedAtATime = 32;  // some milliseconds

std::size_t bytes_of(const CopySample& sample) {
  return sizeof sample + sample.stack.size() + sample.python.size() * sizeof(PythonFrame) +
         (sample.fork ? bytes_of(*sample.fork) : 0);
}

}  // namespace

CopyProfiler::CopyProfiler(const ProcFiles& proc, AddressSpaces::OnInterpreter on_interpreter)
    : proc_(proc), binaries_(proc), spaces_(proc, binaries_, std::move(on_interpreter)) {
  if (auto decoder = StoreDecoder::open()) stores_.emplace(std::move(*decoder));
}

void CopyProfiler::attribute_one(CopySample& sample) {
  waiting_bytes_ -= bytes_of(sample);
  // A forked child has few pages of the files that its parent has read.
  if (sample.object_type_name_at != 0 && sample.object_type.empty()) {
    if (const AddressSpace* space = spaces_.at(sample))
      sample.object_type = space->unwinder->name_at(sample.object_type_name_at);
  }
  if (sample.fork) {
    sites_.add_fork(*sample.fork);
    fresh_.add_fork(*sample.fork);
  }
  if (sample.copy_class == CopyClass::failed) sites_.add_failure(sample);
  else if (sample.copy_class == CopyClass::fresh) fresh_.add(sample);
  else sites_.add(sample, stores_ ? &*stores_ : nullptr);
}

void CopyProfiler::add(std::vector<CopySample> samples) {
  for (CopySample& sample : samples) {
    const std::size_t bytes = bytes_of(sample);
    if (waiting_bytes_ + bytes > kMostWaitingBytes) {
      if (sample.copy_class != CopyClass::fresh) ++dropped_;
      continue;
    }
    waiting_bytes_ += bytes;
    waiting_.push_back(std::move(sample));
  }
}

// Attributes the waiting samples for which `is_known` holds; returns the others.
template <class IsKnown>
std::vector<CopySample> CopyProfiler::attribute_if(IsKnown is_known,
                                                   const std::function<void()>& meanwhile) {
  std::vector<CopySample> unknown;
  std::size_t attributed = 0;
  for (CopySample& sample : std::exchange(waiting_, {})) {
    if (!is_known(sample)) {
      unknown.push_back(std::move(sample));
      continue;
    }
    attribute_one(sample);
    if (++attributed % kAttributedAtATime != 0) continue;
    // A program may map memory, copy it and end while this loop runs.
    spaces_.keep_up(monotonic_ns());
    meanwhile();
  }
  return unknown;
}

void CopyProfiler::wait_first(std::vector<CopySample> samples) {
  waiting_.insert(waiting_.begin(), std::make_move_iterator(samples.begin()),
                  std::make_move_iterator(samples.end()));
}

void CopyProfiler::attribute_known(const std::function<void()>& meanwhile) {
  wait_first(attribute_if(
      [this](const CopySample& sample) { return spaces_.knows(sample.process_id, sample.execs); },
      meanwhile));
}

void CopyProfiler::attribute(const std::vector<ProcessCounts>& processes,
                             const std::function<void()>& meanwhile) {
  const std::uint64_t now = monotonic_ns();
  for (const ProcessCounts& process : processes) spaces_.update(process, now);
  std::vector<CopySample> unknown = attribute_if(
      [this](const CopySample& sample) { return spaces_.knows(sample.process_id); }, meanwhile);
  if (unknown.size() > kMostUnknown)
    for (CopySample& sample : unknown) attribute_one(sample);
  else wait_first(std::move(unknown));
  spaces_.forget_ended();
}

void CopyProfiler::merge(std::uint64_t process_id, std::uint64_t into) {
  sites_.merge(process_id, into);
  fresh_.merge(process_id, into);
  if (stores_) stores_->merge(process_id, into);
}

std::optional<FreeMemory> CopyProfiler::free_pages(pid_t pid,
                                                   const std::vector<Mapping>& mappings) {
  const auto memory = proc_.open(pid, "mem");
  if (!memory) return std::nullopt;
  std::vector<HeapPart> parts;
  HeapPart data;  // the last
  for (const Mapping& each : mappings) {
    if (!each.writable || !each.is_private || each.path == "[stack]") continue;
    const bool is_bss = each.path.empty() && each.begin == data.end;
    HeapPart part{each.begin, each.end, is_bss, is_bss && data.is_of_python};
    if (each.has_file()) {
      part.is_of_python = is_python(language_of_file(each.file_path()));
      part.is_data =
          part.is_of_python || is_c_library(each.file_path()) || each.path == mappings.front().path;
      if (!part.is_data) continue;
      data = part;
    }
    parts.push_back(part);
  }
  if (parts.size() > CodeReader::kMostParts)
    std::ranges::stable_sort(parts, std::greater<>(), [](const HeapPart& each) {
      return std::pair(each.is_data, each.end - each.begin);
    });
  return binaries_.reader().free_pages(*memory, parts);
}

CopyProfiler::OfProcess CopyProfiler::of(std::uint64_t process_id, const CopiedPages& copies) {
  if (!stores_) return {profile_of(process_id, sites_, copies, symbols_), std::nullopt};
  StoreSites::Causes causes =
      stores_->causes(process_id, samples_at_exit(process_id, sites_, symbols_), symbols_);
  return {profile_of(process_id, sites_, copies, symbols_, causes), std::move(causes.patterns)};
}

}  // namespace cowshed::cow
