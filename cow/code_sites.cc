#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <string_view>
#include <utility>

#include <cowshed/cow/code_sites.h>
#include <cowshed/cow/system_calls.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kBlockBytes = 2 << 20;
constexpr std::uint64_t kAboutEqually = 2;  // times

// What a program calls, and does not want to be told that it did.
bool is_runtime_library(std::string_view path) {
  const std::string_view file = path.substr(path.rfind('/') + 1);
  constexpr std::array<std::string_view, 8> kPrefixes = {"libc.so",     "libc-2",   "libstdc++.so",
                                                         "libgcc_s.so", "ld-linux", "libpthread",
                                                         "libm.so",     "[vdso]"};
  return std::any_of(kPrefixes.begin(), kPrefixes.end(),
                     [&](std::string_view prefix) { return file.starts_with(prefix); });
}

template <class T>
void keep_most(std::vector<T>& items, std::size_t most) {
  if (items.size() > most) items.resize(most);
}

// Without what tells two instructions of one line, or of one function without lines, apart.
Frame without_address(Frame frame) {
  if (!frame.function.empty()) frame.address = 0;
  return frame;
}

}  // namespace

std::string mapping_name(const AddressSpace& space, const CopySample& sample) {
  if (!sample.arena.empty()) return "arena " + sample.arena;
  const Mapping* mapping = space.find(sample.address);
  if (mapping == nullptr) return "unknown";
  if (!mapping->path.empty()) return mapping->path;
  const std::uint64_t stack = sample[Register::rsp];
  if (stack >= mapping->begin && stack < mapping->end) return "thread stack";
  if (mapping != space.mappings.data()) {
    const Mapping* before = mapping - 1;
    if (before->end == mapping->begin && before->has_file() && before->is_private) {
      return before->path + " .bss";
    }
  }
  return "anonymous";
}

const CodeStack& CodeSites::add(const CopySample& sample, AddressSpaces& spaces,
                                Binaries& binaries) {
  Tally& tally = tallies_[sample.process_id];
  ++tally.samples;
  Stack stack;
  if (!sample.user_mode) {
    stack.writer = sample.system_call ? static_cast<std::int64_t>(*sample.system_call) : kKernel;
  }
  const AddressSpace* space = spaces.at(sample);
  if (space == nullptr) {
    stack.code.addresses.push_back({nullptr, sample[Register::rip]});
    stack.code.truncated = true;
  } else {
    stack.code = space->unwinder->unwind(sample);
    for (CodeAddress& each : stack.code.addresses) {
      if (each.binary != nullptr) continue;
      if (const auto writer = spaces.writer_of_perf_map(sample)) {
        each.binary = binaries.perf_map(*writer);
      }
    }
  }
  const auto counted = tally.stacks.try_emplace(std::move(stack)).first;
  ++counted->second;
  const std::string mapping = space == nullptr ? "unknown" : mapping_name(*space, sample);
  ++tally.blocks[{sample.address / kBlockBytes, mapping}];
  return counted->first.code;
}

std::vector<Frame> CodeSites::frames(const Stack& stack, Symbols& symbols) {
  std::vector<Frame> frames;
  if (stack.writer != kProgram) {
    const std::string name = stack.writer == kKernel
                                 ? std::string()
                                 : system_call_name(static_cast<std::uint64_t>(stack.writer));
    Frame& kernel = frames.emplace_back();
    kernel.function = stack.writer == kKernel ? "[kernel]"
                      : name.empty()          ? fmt::format("[system call {}]", stack.writer)
                                              : fmt::format("[{}(2)]", name);
  }
  for (const CodeAddress& address : stack.code.addresses) {
    const std::vector<Frame>& here = symbols.frames(address);
    frames.insert(frames.end(), here.begin(), here.end());
  }
  return frames;
}

std::vector<StackSamples> CodeSites::stacks(std::uint64_t process_id, Symbols& symbols) const {
  std::vector<StackSamples> result;
  const auto tally = tallies_.find(process_id);
  if (tally == tallies_.end()) return result;
  for (const auto& [stack, samples] : tally->second.stacks) {
    result.push_back({frames(stack, symbols), stack.code.truncated, samples});
  }
  return result;
}

std::vector<CodeSite> CodeSites::sites(const Tally& tally, Symbols& symbols,
                                       std::size_t most) const {
  struct Found {
    std::uint64_t samples = 0;
    std::uint64_t most_samples = 0;
    std::vector<Frame> stack;
  };
  std::map<std::vector<Frame>, Found> found;
  for (const auto& [stack, samples] : tally.stacks) {
    std::vector<Frame> all = frames(stack, symbols);
    std::vector<Frame> place;
    for (const Frame& frame : all) {
      place.push_back(without_address(frame));
      const bool is_kernel = frame.module.empty() && frame.function.starts_with('[');
      if (!is_kernel && !frame.inlined && !is_runtime_library(frame.module)) break;
    }
    Found& site = found[std::move(place)];
    site.samples += samples;
    if (samples > site.most_samples) {
      site.most_samples = samples;
      site.stack = std::move(all);
    }
  }
  std::vector<CodeSite> result;
  result.reserve(found.size());
  for (auto& [place, site] : found) {
    result.push_back({place, std::move(site.stack), site.samples, site.samples * period_});
  }
  std::stable_sort(result.begin(), result.end(),
                   [](const auto& a, const auto& b) { return a.samples > b.samples; });
  keep_most(result, most);
  return result;
}

std::vector<MappingCopies> CodeSites::mappings(const Tally& tally, std::size_t most) const {
  std::map<std::string, std::uint64_t> samples;
  for (const auto& [block, count] : tally.blocks) samples[block.mapping] += count;
  std::vector<MappingCopies> result;
  result.reserve(samples.size());
  for (const auto& [name, count] : samples) result.push_back({name, count, count * period_});
  std::stable_sort(result.begin(), result.end(),
                   [](const auto& a, const auto& b) { return a.samples > b.samples; });
  keep_most(result, most);
  return result;
}

std::vector<RangeCopies> CodeSites::ranges(const Tally& tally, std::size_t most) const {
  const auto density = [](const RangeCopies& range) {
    return static_cast<double>(range.samples) / static_cast<double>(range.end - range.begin);
  };
  std::vector<RangeCopies> result;
  for (const auto& [block, count] : tally.blocks) {
    const std::uint64_t begin = block.number * kBlockBytes;
    RangeCopies next{begin, begin + kBlockBytes, block.mapping, count, count * period_};
    if (!result.empty() && result.back().end == begin && result.back().mapping == block.mapping &&
        density(next) <= kAboutEqually * density(result.back()) &&
        density(result.back()) <= kAboutEqually * density(next)) {
      RangeCopies& last = result.back();
      last.end = next.end;
      last.samples += next.samples;
      last.estimated_copies += next.estimated_copies;
    } else {
      result.push_back(std::move(next));
    }
  }
  std::stable_sort(result.begin(), result.end(),
                   [&](const auto& a, const auto& b) { return density(a) > density(b); });
  keep_most(result, most);
  return result;
}

SampledCopies CodeSites::of(std::uint64_t process_id, Symbols& symbols, std::size_t most) const {
  SampledCopies result;
  const auto found = tallies_.find(process_id);
  if (found == tallies_.end()) return result;
  const Tally& tally = found->second;
  result.samples = tally.samples;
  result.sites = sites(tally, symbols, most);
  result.mappings = mappings(tally, most);
  result.ranges = ranges(tally, most);
  return result;
}

SampledCopies CodeSites::of_all(Symbols& symbols, std::size_t most) const {
  Tally sum;
  for (const auto& [id, tally] : tallies_) {
    sum.samples += tally.samples;
    for (const auto& [stack, samples] : tally.stacks) sum.stacks[stack] += samples;
    for (const auto& [block, samples] : tally.blocks) sum.blocks[block] += samples;
  }
  SampledCopies result;
  result.samples = sum.samples;
  result.sites = sites(sum, symbols, most);
  result.mappings = mappings(sum, most);
  return result;  // addresses of different processes have nothing in common
}

}  // namespace cowshed::cow
