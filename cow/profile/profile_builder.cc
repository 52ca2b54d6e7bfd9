#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <set>
#include <string_view>
#include <utility>

#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/causes/new_memory.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/profile/profile_builder.h>
#include <cowshed/cow/profile/stack_frames.h>
#include <cowshed/cow/symbolize/syscall_names.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kBlockBytes = 2 << 20;
constexpr std::uint64_t kAboutEqually = 2;  // factor between densities
constexpr std::uint64_t kFewSamples = 16;   // of a process
constexpr std::size_t kLongestType = 256;
constexpr const char* kFurtherTypes = "further types";

template <class T>
void keep_most(std::vector<T>& items, std::size_t most) {
  if (items.size() > most) items.resize(most);
}

// Not by samples: after losses, a sample stands for more copies in one process than in another.
template <class T>
void sort_by_copies(std::vector<T>& items) {
  std::ranges::stable_sort(items, std::greater<>(), [](const T& item) {
    return std::pair(item.estimated_copies, item.samples);
  });
}

std::uint64_t rounded(double copies) { return static_cast<std::uint64_t>(std::llround(copies)); }

// Of several processes, whose samples stand for different numbers of copies.
struct EstimatedSum {
  std::uint64_t samples = 0;
  double copies = 0;
  void add(const SampleSum& sum, double scale) {
    samples += sum.samples;
    copies += static_cast<double>(sum.copies) * scale;
  }
};

// The most frequent of a list with names.
template <class T>
std::vector<T> most_of(const std::map<std::string, EstimatedSum>& found, std::size_t most) {
  std::vector<T> result;
  result.reserve(found.size());
  for (const auto& [name, sum] : found) result.push_back({name, sum.samples, rounded(sum.copies)});
  sort_by_copies(result);
  keep_most(result, most);
  return result;
}

// Whether the page is .bss: the program headers of the file that `last` maps load it.  It is in
// anonymous memory behind `last`.  Memory that mmap() puts there later becomes the same mapping.
bool is_bss(const AddressSpace& space, const Mapping* last, const CopySample& sample,
            BinaryCache& binaries) {
  const Mapping* first = last;
  while (first != space.mappings.data() && (first - 1)->path == last->path) --first;
  const Binary* binary = binaries.open(*last, sample.pid);
  return sample.address - first->begin < binary->end - binary->begin / kPageSize * kPageSize;
}

// Returns MappingCopies::name.
std::string mapping_name(const AddressSpace& space, const CopySample& sample,
                         BinaryCache& binaries) {
  if (!sample.arena.empty()) return "arena " + sample.arena;
  const Mapping* mapping = space.find(sample.address);
  if (mapping == nullptr) return "unknown";
  if (mapping->is_settled()) return "heap, settled";
  if (!mapping->path.empty()) return std::string(mapping->file_path());
  const std::uint64_t stack = sample[Register::stack_pointer];
  if (stack >= mapping->begin && stack < mapping->end) return "thread stack";
  if (mapping != space.mappings.data()) {
    const Mapping* before = mapping - 1;
    if (before->end == mapping->begin && before->has_file() && before->is_private &&
        is_bss(space, before, sample, binaries)) {
      return std::string(before->file_path()) + " .bss";
    }
  }
  return "anonymous";
}

// FailedAccess::reason.
std::string reason_of(AccessFailure failure) {
  switch (failure) {
    case AccessFailure::not_inherited: return "not inherited";
    case AccessFailure::not_mapped: return "not mapped";
    case AccessFailure::read_only: return "read-only";
    case AccessFailure::no_access: return "no access";
    case AccessFailure::not_executable: return "not executable";
    case AccessFailure::no_page: return "lacks a page";
    case AccessFailure::none:
    case AccessFailure::other: break;
  }
  return "unknown";
}

// Whether the write was to what the interpreter itself keeps in each object: the collector's links,
// the reference count, or a cached hash.
bool is_at_head(const CopySample& sample) {
  constexpr std::int32_t kLinks = -16;
  constexpr std::int32_t kHeadBytes = 32;
  return !sample.object_type.empty() && sample.object_offset >= kLinks &&
         sample.object_offset < kHeadBytes;
}

// Whether the line of Python that the thread was at is not known.
bool lacks_python(const CopySample& sample) {
  constexpr std::size_t kDeep = 64;  // as many as are read of a deep stack
  return (sample.is_python_cut && sample.python.size() < kDeep) ||
         std::ranges::find(sample.python, nullptr, &PythonFrame::code) != sample.python.end();
}

}  // namespace

ProfileBuilder::Stack ProfileBuilder::stack_of(const CopySample& sample, const AddressSpace* space,
                                               const AddressSpaces& spaces, BinaryCache& binaries) {
  Stack stack;
  if (!sample.user_mode)
    stack.writer = sample.system_call ? static_cast<std::int64_t>(*sample.system_call) : kKernel;
  for (const PythonFrame& call : sample.python)
    stack.python.push_back(python_.frame(call, binaries.reader()));
  if (space == nullptr) {
    stack.code.addresses.emplace_back();  // one for all unknown addresses, which may be very many
    stack.code.truncated = stack.python.empty() || sample.is_python_cut;
    return stack;
  }
  stack.code = space->unwinder->unwind(sample);
  if (!stack.python.empty()) stack.code.truncated = false;
  if (sample.is_python_cut) stack.code.truncated = true;
  for (CodeAddress& each : stack.code.addresses) {
    if (each.binary != nullptr) continue;
    const Mapping* mapping = space->find(each.address);
    if (mapping != nullptr && !mapping->is_memory()) continue;
    if (const Binary* map = spaces.perf_map_of(sample)) each.binary = map;
    else if (mapping != nullptr) each.binary = binaries.generated_code();
  }
  return stack;
}

void ProfileBuilder::add_failure(const CopySample& sample, AddressSpaces& spaces,
                                 BinaryCache& binaries) {
  constexpr std::size_t kMostFailures = 4;
  std::vector<Failure>& failures = tallies_[sample.process_id].failures;
  if (failures.size() == kMostFailures) {
    if (sample.is_handled) return;
    failures.pop_back();
  }
  const AddressSpace* space = spaces.at(sample);
  const Mapping* mapping = space == nullptr ? nullptr : space->find(sample.address);
  FailedAccess access;
  access.address = sample.address;
  if (mapping != nullptr) {
    const std::string_view arena = arena_name(*mapping);
    access.mapping =
        arena.empty() ? mapping_name(*space, sample, binaries) : fmt::format("arena {}", arena);
  }
  access.reason = reason_of(sample.failure);
  access.handled = sample.is_handled;
  failures.push_back({std::move(access), stack_of(sample, space, spaces, binaries)});
}

void ProfileBuilder::add_fork(const CopySample& fork, AddressSpaces& spaces,
                              BinaryCache& binaries) {
  if (const AddressSpace* space = spaces.at(fork))
    tallies_[fork.process_id].fork = stack_of(fork, space, spaces, binaries);
}

void ProfileBuilder::add(const CopySample& sample, AddressSpaces& spaces, BinaryCache& binaries,
                         StoreSites* stores) {
  Tally& tally = tallies_[sample.process_id];
  const SampleSum one{1, sample.copies};
  tally.all += one;
  const AddressSpace* space = spaces.at(sample);
  Stack stack = stack_of(sample, space, spaces, binaries);
  Block block = space == nullptr
                    ? Block{Block::kAnywhere, "unknown"}
                    : Block{sample.address / kBlockBytes, mapping_name(*space, sample, binaries)};
  if (sample.copy_class == CopyClass::fresh) {
    stack.page = page_of(sample, block, tally);
    stack.descriptor = sample.descriptor;
  }
  if (addresses_ >= kMostAddresses) shorten_new(stack, tally);
  const auto [counted, is_new_stack] = tally.stacks.try_emplace(std::move(stack));
  if (is_new_stack) {
    addresses_ += counted->first.code.addresses.size() + counted->first.python.size();
    counted->second.processes = 1;
  }
  counted->second.all += one;
  if (sample.copy_class != CopyClass::fresh) {
    Written written;
    if (stores != nullptr) written.object_cause = stores->add(sample, counted->first.code);
    if (is_at_head(sample)) written.type = sample.object_type.substr(0, kLongestType);
    count_part(std::move(written), one, counted->second);
  }
  if (blocks_ >= kMostBlocks && !tally.blocks.contains(block))
    block = {Block::kAnywhere, "unknown"};
  const auto [in_block, is_new_block] = tally.blocks.try_emplace(std::move(block));
  if (is_new_block) ++blocks_;
  in_block->second += one;
  if (lacks_python(sample)) ++tally.python_unread;
  if (is_at_head(sample)) count_type(sample.object_type.substr(0, kLongestType), one, tally);
}

void ProfileBuilder::count_part(Written written, const SampleSum& one, StackSum& stack) {
  if (addresses_ >= kMostAddresses && !stack.parts.contains(written)) written = {};
  const auto [part, is_new] = stack.parts.try_emplace(std::move(written));
  if (is_new) ++addresses_;
  part->second += one;
}

void ProfileBuilder::count_type(std::string name, const SampleSum& one, Tally& tally) {
  if (types_ >= kMostTypes && !tally.types.contains(name)) name = kFurtherTypes;
  const auto [type, is_new] = tally.types.try_emplace(std::move(name));
  if (is_new) ++types_;
  type->second += one;
}

NewPage ProfileBuilder::page_of(const CopySample& sample, const Block& block, const Tally& tally) {
  constexpr std::uint64_t kPages = kBlockBytes / kPageSize;
  if (sample.is_of_stack) return NewPage::of_stack;
  const auto before = tally.blocks.find(block);
  const bool is_full = block.number != Block::kAnywhere && before != tally.blocks.end() &&
                       before->second.copies >= kPages + sample.copies;
  return is_full ? NewPage::again : NewPage::first;
}

// Shortens a new stack to its innermost frame; if that is new, too, to no frame.
void ProfileBuilder::shorten_new(Stack& stack, const Tally& tally) const {
  if (tally.stacks.contains(stack)) return;
  stack.code.truncated = true;
  stack.code.addresses.resize(1);
  if (stack.python.size() > 1) stack.python.resize(1);
  if (tally.stacks.contains(stack)) return;
  stack.code.addresses = {CodeAddress{}};
  stack.python.clear();
}

// Drops addresses without a binary: they differ in each process, so the sums would only grow.
void ProfileBuilder::merge(std::uint64_t process_id, std::uint64_t into) {
  const auto from = tallies_.extract(process_id);
  if (from.empty()) return;
  Tally& sum = tallies_[into];
  Tally before = std::exchange(sum, {});
  types_ -= before.types.size() + from.mapped().types.size();
  for (Tally* each : {&before, &from.mapped()}) {
    sum.all += each->all;
    if (!sum.fork) sum.fork = each->fork;
    for (Failure& failure : each->failures)
      if (sum.failures.empty()) sum.failures.push_back(std::move(failure));
    for (const auto& [stack, samples] : each->stacks) {
      Stack anywhere = stack;
      for (CodeAddress& address : anywhere.code.addresses)
        if (address.binary == nullptr) address = {};
      StackSum& stack_sum = sum.stacks[std::move(anywhere)];
      stack_sum.all += samples.all;
      stack_sum.processes += samples.processes;
      for (const auto& [written, part] : samples.parts) stack_sum.parts[written] += part;
    }
    sum.python_unread += each->python_unread;
    for (const auto& [type, samples] : each->types) sum.types[type] += samples;
    for (const auto& [block, samples] : each->blocks)
      sum.blocks[{Block::kAnywhere, block.mapping}] += samples;
  }
  types_ += sum.types.size();
}

void ProfileBuilder::look_up(const std::vector<Weighted>& tallies, Symbolizer& symbols) {
  std::set<CodeAddress> addresses;
  const auto add = [&](const Stack& stack) {
    const std::vector<CodeAddress>& code = stack.code.addresses;
    addresses.insert(code.begin(), code.end());
  };
  for (const Weighted& each : tallies) {
    for (const auto& [stack, samples] : each.tally->stacks) add(stack);
    for (const Failure& failure : each.tally->failures) add(failure.stack);
    if (each.tally->fork) add(*each.tally->fork);
  }
  symbols.look_up(std::move(addresses));
}

StoreSites::Kernel ProfileBuilder::Stack::kernel() const {
  if (writer == kProgram) return std::nullopt;
  if (writer == kKernel) return std::optional<std::uint64_t>();
  return std::optional(static_cast<std::uint64_t>(writer));
}

std::vector<Frame> ProfileBuilder::frames(const Stack& stack, Symbolizer& symbols) {
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
  return stack.python.empty() ? frames : with_python_frames(std::move(frames), stack.python);
}

std::vector<StoreSites::AtExit> ProfileBuilder::at_exit(std::uint64_t process_id,
                                                        Symbolizer& symbols) const {
  std::vector<StoreSites::AtExit> result;
  const auto found = tallies_.find(process_id);
  if (found == tallies_.end()) return result;
  look_up({{&found->second, 0}}, symbols);
  const auto exits_in = [&](const Stack& stack) { return ends_of_program(frames(stack, symbols)); };
  const std::size_t before = found->second.fork ? exits_in(*found->second.fork) : 0;
  for (const auto& [stack, samples] : found->second.stacks)
    if (exits_in(stack) > before) result.push_back({stack.kernel(), stack.code, samples.all});
  return result;
}

ProfileBuilder::Weighted ProfileBuilder::weighted(std::uint64_t process_id, const Tally& tally,
                                                  const Copies& copies) {
  const auto copied = copies.find(process_id);
  const auto pages = copied == copies.end() ? 0.0 : static_cast<double>(copied->second);
  return {&tally, pages / static_cast<double>(std::max<std::uint64_t>(tally.all.copies, 1))};
}

std::vector<CodeSite> ProfileBuilder::sites(const std::vector<Weighted>& tallies,
                                            Symbolizer& symbols, std::size_t most) {
  struct Found {
    std::uint64_t samples = 0;
    double copies = 0;
    std::uint64_t most_samples = 0;
    std::vector<Frame> stack;
    bool truncated = false;
  };
  std::map<std::vector<Frame>, Found> found;
  look_up(tallies, symbols);
  for (const Weighted& each : tallies) {
    for (const auto& [stack, sum] : each.tally->stacks) {
      std::vector<Frame> all = frames(stack, symbols);
      Found& site = found[site_frames(all)];
      site.samples += sum.all.samples;
      site.copies += each.copies(sum.all);
      if (sum.all.samples > site.most_samples) {
        site.most_samples = sum.all.samples;
        site.stack = std::move(all);
        site.truncated = stack.code.truncated;
      }
    }
  }
  std::vector<CodeSite> result;
  result.reserve(found.size());
  for (auto& [frames, site] : found) {
    result.push_back({symbols.shared(frames), symbols.shared(std::move(site.stack)), site.samples,
                      rounded(site.copies), site.truncated});
  }
  sort_by_copies(result);
  keep_most(result, most);
  return result;
}

// The most frequent entries of a list with names.
template <class T, class CountOf>
std::vector<T> ProfileBuilder::by_name(const std::vector<Weighted>& tallies, std::size_t most,
                                       CountOf count_of) {
  std::map<std::string, EstimatedSum> found;
  for (const Weighted& each : tallies)
    count_of(*each.tally, [&](const std::string& name, const SampleSum& sum) {
      found[name].add(sum, each.scale);
    });
  return most_of<T>(found, most);
}

// What has a meaning for several processes.
SampledCopies ProfileBuilder::added_up(const std::vector<Weighted>& tallies, Symbolizer& symbols,
                                       std::size_t most) {
  SampledCopies result;
  for (const Weighted& each : tallies) {
    result.samples += each.tally->all.samples;
    result.python_unread += each.tally->python_unread;
  }
  result.sites = sites(tallies, symbols, most);
  result.mappings =
      by_name<MappingCopies>(tallies, most, [](const Tally& tally, const auto& count) {
        for (const auto& [block, samples] : tally.blocks) count(block.mapping, samples);
      });
  result.types = by_name<TypeCopies>(tallies, most, [](const Tally& tally, const auto& count) {
    for (const auto& [type, samples] : tally.types) count(type, samples);
  });
  return result;
}

std::vector<RangeCopies> ProfileBuilder::ranges(const Weighted& weighted, std::size_t most) {
  const auto density = [](const RangeCopies& range) {
    return static_cast<double>(range.estimated_copies) /
           static_cast<double>(range.end - range.begin);
  };
  std::vector<RangeCopies> result;
  for (const auto& [block, sum] : weighted.tally->blocks) {
    if (block.number == Block::kAnywhere) continue;
    const std::uint64_t begin = block.number * kBlockBytes;
    RangeCopies next{begin, begin + kBlockBytes, block.mapping, sum.samples, sum.copies};
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
  std::ranges::stable_sort(result, std::greater<>(), density);
  for (RangeCopies& range : result)  // it had what its samples stand for
    range.estimated_copies = rounded(weighted.copies({range.samples, range.estimated_copies}));
  keep_most(result, most);
  return result;
}

std::vector<FoldedStack> ProfileBuilder::folded(const Weighted& weighted, Symbolizer& symbols,
                                                const StoreSites::Causes& causes) {
  struct Key {
    std::string folded;
    std::string_view cause;
    std::string_view object;
    auto operator<=>(const Key&) const = default;
  };
  std::map<Key, SampleSum> found;
  const std::optional<Stack>& fork = weighted.tally->fork;
  const std::size_t exits_before = fork ? ends_of_program(frames(*fork, symbols)) : 0;
  for (const auto& [stack, sum] : weighted.tally->stacks) {
    const std::vector<Frame> all = frames(stack, symbols);
    const std::string text = fold(all, stack.code.truncated);
    const bool is_at_exit = !causes.patterns.empty() && ends_of_program(all) > exits_before;
    for (const auto& [written, part] : sum.parts) {
      const std::string_view cause =
          is_at_exit ? kProgramExit : causes.of(stack.kernel(), stack.code, written.object_cause);
      found[{text, cause, written.type}] += part;
    }
  }
  const auto all = static_cast<long double>(weighted.tally->all.copies);
  const auto copies = std::round(weighted.copies(weighted.tally->all));
  // Rounds the running sum, not each stack, so that the copies add up to the exact number.
  std::vector<FoldedStack> result;
  result.reserve(found.size());
  std::uint64_t before = 0;
  std::uint64_t copies_before = 0;
  for (const auto& [key, sum] : found) {
    before += sum.copies;
    const auto end = static_cast<std::uint64_t>(copies * (static_cast<long double>(before) / all));
    result.push_back({key.folded, sum.samples, end - copies_before, std::string(key.cause),
                      std::string(key.object)});
    copies_before = end;
  }
  sort_by_copies(result);
  return result;
}

std::vector<FailedAccess> ProfileBuilder::failures(const Tally& tally, Symbolizer& symbols) {
  std::vector<FailedAccess> result;
  for (const Failure& failure : tally.failures) {
    FailedAccess& access = result.emplace_back(failure.access);
    std::vector<Frame> all = frames(failure.stack, symbols);
    access.frames = symbols.shared(site_frames(all));
    access.stack = symbols.shared(std::move(all));
  }
  return result;
}

SampledCopies ProfileBuilder::of(std::uint64_t process_id, const Copies& copies,
                                 Symbolizer& symbols, std::size_t most,
                                 const StoreSites::Causes& causes) const {
  const auto found = tallies_.find(process_id);
  if (found == tallies_.end()) return {};
  const Weighted one = weighted(process_id, found->second, copies);
  SampledCopies result = added_up({one}, symbols, most);
  result.ranges = ranges(one, most);
  result.stacks = folded(one, symbols, causes);
  result.failures = failures(*one.tally, symbols);
  return result;
}

std::vector<ProfileBuilder::Weighted> ProfileBuilder::weighted_all(const Copies& copies) const {
  // Processes with few samples or none are estimated together: what each of their samples stands
  // for is scaled by the same factor.
  SampleSum few;
  std::uint64_t few_copies = 0;
  const auto has_few = [this](std::uint64_t id) {
    const auto tally = tallies_.find(id);
    return tally == tallies_.end() || tally->second.all.samples < kFewSamples;
  };
  for (const auto& [id, copied] : copies)
    if (has_few(id)) few_copies += copied;
  for (const auto& [id, tally] : tallies_)
    if (has_few(id)) few += tally.all;
  const double scale_of_few =
      static_cast<double>(few_copies) / static_cast<double>(std::max<std::uint64_t>(few.copies, 1));
  std::vector<Weighted> all;
  for (const auto& [id, tally] : tallies_)
    all.push_back(has_few(id) ? Weighted{&tally, scale_of_few} : weighted(id, tally, copies));
  return all;
}

SampledCopies ProfileBuilder::of_all(const Copies& copies, Symbolizer& symbols,
                                     std::size_t most) const {
  return added_up(weighted_all(copies), symbols, most);
}

NewMemory ProfileBuilder::new_memory(const Copies& pages, Symbolizer& symbols,
                                     std::size_t most) const {
  const std::vector<Weighted> all = weighted_all(pages);
  SampledCopies sums = added_up(all, symbols, most);
  struct CauseSum : EstimatedSum {
    double most = 0;
    std::uint64_t processes = 0;  // of those that were merged
  };
  std::map<std::string, CauseSum> causes;
  std::map<std::pair<std::string, std::string>, EstimatedSum> found;  // by stack and cause
  for (const Weighted& each : all) {
    const std::size_t imports =
        each.tally->fork ? imports_in(frames(*each.tally->fork, symbols)) : 0;
    std::map<std::string, CauseSum> here;
    for (const auto& [stack, sum] : each.tally->stacks) {
      const std::vector<Frame> frames_of_it = frames(stack, symbols);
      const std::string cause =
          cause_of_new_memory(frames_of_it, imports, stack.page, stack.descriptor);
      CauseSum& part = here[cause];
      part.add(sum.all, each.scale);
      part.processes = std::max(part.processes, sum.processes);
      found[{fold(frames_of_it, stack.code.truncated), cause}].add(sum.all, each.scale);
    }
    for (const auto& [cause, part] : here) {
      CauseSum& all_of_it = causes[cause];
      all_of_it.samples += part.samples;
      all_of_it.copies += part.copies;
      all_of_it.most = std::max(all_of_it.most, part.copies / static_cast<double>(part.processes));
    }
  }
  std::vector<NewCause> most_causes;
  for (const auto& [name, sum] : causes)
    most_causes.push_back({name, sum.samples, rounded(sum.copies), rounded(sum.most)});
  sort_by_copies(most_causes);
  keep_most(most_causes, most);
  std::vector<FoldedStack> stacks;
  stacks.reserve(found.size());
  for (const auto& [key, sum] : found)
    stacks.push_back({key.first, sum.samples, rounded(sum.copies), key.second});
  sort_by_copies(stacks);
  constexpr std::size_t kMostStacks = 1000;
  keep_most(stacks, kMostStacks);
  return {sums.samples,           std::move(sums.sites), std::move(sums.mappings),
          std::move(most_causes), std::move(stacks),     sums.python_unread};
}

}  // namespace cowshed::cow
