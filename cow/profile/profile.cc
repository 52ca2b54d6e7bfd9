#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>
#include <utility>

#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/profile/profile.h>
#include <cowshed/cow/profile/stack_frames.h>

namespace cowshed::cow {
namespace {

using Block = Tally::Block;

constexpr std::size_t kMostOfAKind = 50;
constexpr std::uint64_t kAboutEqually = 2;  // factor between densities
constexpr std::uint64_t kFewSamples = 16;   // of a process

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

// Not by samples: after losses, a sample stands for more copies in one process than in another.
template <class T>
void sort_by_copies(std::vector<T>& items) {
  std::ranges::stable_sort(items, std::greater<>(), [](const T& item) {
    return std::pair(item.estimated_copies, item.samples);
  });
}

template <class T>
void keep_most(std::vector<T>& items, std::size_t most = kMostOfAKind) {
  if (items.size() > most) items.resize(most);
}

// Returns the entries with the most copies that `make` makes of keys and sums.
template <class Sums, class Make>
auto most_of(Sums& sums, Make make, std::size_t most = kMostOfAKind) {
  std::vector<decltype(make(sums.begin()->first, sums.begin()->second))> result;
  result.reserve(sums.size());
  for (auto& [key, sum] : sums) result.push_back(make(key, sum));
  sort_by_copies(result);
  keep_most(result, most);
  return result;
}

// The samples of one process, and its copies per copy that a sample stands for.
struct Weighted {
  const Tally* tally;
  double scale;
};

double ratio(std::uint64_t copies, std::uint64_t sampled) {
  return static_cast<double>(copies) / static_cast<double>(std::max<std::uint64_t>(sampled, 1));
}

Weighted weighted(std::uint64_t process_id, const Tally& tally, const CopiedPages& copies) {
  const auto copied = copies.find(process_id);
  return {&tally, ratio(copied == copies.end() ? 0 : copied->second, tally.all.copies)};
}

// Processes with few samples or none are estimated together: what each of their samples stands for
// is scaled by the same factor.
std::vector<Weighted> weighted_all(const std::map<std::uint64_t, Tally>& tallies,
                                   const CopiedPages& copies) {
  SampleSum few;
  std::uint64_t few_copies = 0;
  const auto has_few = [&](std::uint64_t id) {
    const auto tally = tallies.find(id);
    return tally == tallies.end() || tally->second.all.samples < kFewSamples;
  };
  for (const auto& [id, copied] : copies)
    if (has_few(id)) few_copies += copied;
  for (const auto& [id, tally] : tallies)
    if (has_few(id)) few += tally.all;
  const double scale_of_few = ratio(few_copies, few.copies);
  std::vector<Weighted> all;
  for (const auto& [id, tally] : tallies)
    all.push_back(has_few(id) ? Weighted{&tally, scale_of_few} : weighted(id, tally, copies));
  return all;
}

void look_up(const std::vector<Weighted>& tallies, Symbolizer& symbols) {
  std::set<CodeAddress> addresses;
  const auto add = [&](const Tally::Stack& stack) {
    addresses.insert(stack.code.addresses.begin(), stack.code.addresses.end());
  };
  for (const Weighted& each : tallies) {
    for (const auto& [stack, samples] : each.tally->stacks) add(stack);
    for (const Tally::Failure& failure : each.tally->failures) add(failure.stack);
    if (each.tally->fork) add(*each.tally->fork);
  }
  symbols.look_up(std::move(addresses));
}

std::size_t exits_at_fork(const Tally& tally, Symbolizer& symbols) {
  return tally.fork ? ends_of_program(frames_of(*tally.fork, symbols)) : 0;
}

std::vector<CodeSite> sites(const std::vector<Weighted>& tallies, Symbolizer& symbols) {
  struct Found : EstimatedSum {
    std::uint64_t most_samples = 0;
    std::vector<Frame> stack;
    bool truncated = false;
  };
  std::map<std::vector<Frame>, Found> found;
  look_up(tallies, symbols);
  for (const Weighted& each : tallies) {
    for (const auto& [stack, sum] : each.tally->stacks) {
      std::vector<Frame> all = frames_of(stack, symbols);
      Found& site = found[site_frames(all)];
      site.add(sum.all, each.scale);
      if (sum.all.samples > site.most_samples) {
        site.most_samples = sum.all.samples;
        site.stack = std::move(all);
        site.truncated = stack.code.truncated;
      }
    }
  }
  return most_of(found, [&](const std::vector<Frame>& frames, Found& site) {
    return CodeSite{symbols.shared(frames), symbols.shared(std::move(site.stack)), site.samples,
                    rounded(site.copies), site.truncated};
  });
}

std::string name_of(const std::string& type) { return type; }
std::string name_of(const Block& block) { return block.mapping; }

// The most frequent entries of a list with names.
template <class T, class Key>
std::vector<T> by_name(const std::vector<Weighted>& tallies,
                       std::map<Key, SampleSum> Tally::* sums) {
  std::map<std::string, EstimatedSum> found;
  for (const Weighted& each : tallies)
    for (const auto& [key, sum] : each.tally->*sums) found[name_of(key)].add(sum, each.scale);
  return most_of(found, [](const std::string& name, const EstimatedSum& sum) {
    return T{name, sum.samples, rounded(sum.copies)};
  });
}

// What has a meaning for several processes.
SampledCopies added_up(const std::vector<Weighted>& tallies, Symbolizer& symbols) {
  SampledCopies result;
  for (const Weighted& each : tallies) {
    result.samples += each.tally->all.samples;
    result.python_unread += each.tally->python_unread;
  }
  result.sites = sites(tallies, symbols);
  result.mappings = by_name<MappingCopies>(tallies, &Tally::blocks);
  result.types = by_name<TypeCopies>(tallies, &Tally::types);
  return result;
}

std::vector<RangeCopies> ranges(const Weighted& weighted) {
  const auto density = [](const RangeCopies& range) {
    return static_cast<double>(range.estimated_copies) /
           static_cast<double>(range.end - range.begin);
  };
  std::vector<RangeCopies> result;
  for (const auto& [block, sum] : weighted.tally->blocks) {
    if (block.number == Block::kAnywhere) continue;
    const std::uint64_t begin = block.number * Block::kBytes;
    RangeCopies next{begin, begin + Block::kBytes, block.mapping, sum.samples, sum.copies};
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
    range.estimated_copies = rounded(static_cast<double>(range.estimated_copies) * weighted.scale);
  keep_most(result);
  return result;
}

// What stacks of one text have in common.
struct FoldedKey {
  std::string folded;
  std::string_view cause;
  std::string_view object;
  auto operator<=>(const FoldedKey&) const = default;
};

// Rounds the running sum, not each stack, so that the copies add up to the exact number.
std::vector<FoldedStack> spread(const std::map<FoldedKey, SampleSum>& sums,
                                const Weighted& weighted) {
  const auto all = static_cast<long double>(weighted.tally->all.copies);
  const auto copies = std::round(static_cast<double>(weighted.tally->all.copies) * weighted.scale);
  std::vector<FoldedStack> result;
  result.reserve(sums.size());
  std::uint64_t before = 0;
  std::uint64_t copies_before = 0;
  for (const auto& [key, sum] : sums) {
    before += sum.copies;
    const auto end = static_cast<std::uint64_t>(copies * (static_cast<long double>(before) / all));
    result.push_back({key.folded, sum.samples, end - copies_before, std::string(key.cause),
                      std::string(key.object)});
    copies_before = end;
  }
  sort_by_copies(result);
  return result;
}

std::vector<FoldedStack> folded(const Weighted& weighted, Symbolizer& symbols,
                                const StoreSites::Causes& causes) {
  std::map<FoldedKey, SampleSum> found;
  const std::size_t exits_before = exits_at_fork(*weighted.tally, symbols);
  for (const auto& [stack, sum] : weighted.tally->stacks) {
    const std::vector<Frame> all = frames_of(stack, symbols);
    const std::string text = fold(all, stack.code.truncated);
    const bool is_at_exit = !causes.patterns.empty() && ends_of_program(all) > exits_before;
    for (const auto& [written, part] : sum.parts) {
      const std::string_view cause =
          is_at_exit ? kProgramExit : causes.of(stack.kernel, stack.code, written.object_cause);
      found[{text, cause, written.type}] += part;
    }
  }
  return spread(found, weighted);
}

std::vector<FailedAccess> failures(const Tally& tally, Symbolizer& symbols) {
  std::vector<FailedAccess> result;
  for (const Tally::Failure& failure : tally.failures) {
    FailedAccess& access = result.emplace_back(failure.access);
    std::vector<Frame> all = frames_of(failure.stack, symbols);
    access.frames = symbols.shared(site_frames(all));
    access.stack = symbols.shared(std::move(all));
  }
  return result;
}

// Samples of one cause of new memory.
struct CauseSum : EstimatedSum {
  double unforked = 0;          // copies of processes that run a program that they executed
  double most = 0;              // of one other process
  std::uint64_t processes = 0;  // of those that were merged
  std::map<std::string, double> makers;  // copies by maker_of()
};
std::string main_maker(const CauseSum& sum) {
  for (const auto& [maker, copies] : sum.makers)
    if (copies > sum.copies / 2) return maker;
  return {};
}
using StackAndCause = std::pair<std::string, std::string>;

// The causes of one process.  Adds its stacks to `found`.
std::map<NewMemoryCause, CauseSum> new_causes(const Weighted& weighted, Symbolizer& symbols,
                                              std::map<StackAndCause, EstimatedSum>& found) {
  const std::optional<Tally::Stack>& fork = weighted.tally->fork;
  const std::size_t imports = fork ? imports_in(frames_of(*fork, symbols)) : 0;
  std::map<NewMemoryCause, CauseSum> causes;
  for (const auto& [stack, sum] : weighted.tally->stacks) {
    const std::vector<Frame> all = frames_of(stack, symbols);
    const NewMemoryCause cause = cause_of_new_memory(all, imports, stack.page, stack.descriptor);
    CauseSum& part = causes[cause];
    part.add(sum.all, weighted.scale);
    part.processes = std::max(part.processes, sum.processes);
    if (cause.kind == kOwnData || cause.kind == kGivenBackSince)
      part.makers[maker_of(site_frames(all))] +=
          weighted.scale * static_cast<double>(sum.all.copies);
    found[{fold(all, stack.code.truncated), name_of(cause)}].add(sum.all, weighted.scale);
  }
  return causes;
}

}  // namespace

std::vector<StoreSites::AtExit> samples_at_exit(std::uint64_t process_id, const Tallies& tallies,
                                                Symbolizer& symbols) {
  std::vector<StoreSites::AtExit> result;
  const auto found = tallies.all().find(process_id);
  if (found == tallies.all().end()) return result;
  const Tally& tally = found->second;
  look_up({{&tally, 0}}, symbols);
  const std::size_t before = exits_at_fork(tally, symbols);
  for (const auto& [stack, samples] : tally.stacks)
    if (ends_of_program(frames_of(stack, symbols)) > before)
      result.push_back({stack.kernel, stack.code, samples.all});
  return result;
}

SampledCopies profile_of(std::uint64_t process_id, const Tallies& tallies,
                         const CopiedPages& copies, Symbolizer& symbols,
                         const StoreSites::Causes& causes) {
  const auto found = tallies.all().find(process_id);
  if (found == tallies.all().end()) return {};
  const Weighted one = weighted(process_id, found->second, copies);
  SampledCopies result = added_up({one}, symbols);
  result.ranges = ranges(one);
  result.stacks = folded(one, symbols, causes);
  result.failures = failures(*one.tally, symbols);
  return result;
}

SampledCopies profile_of_all(const Tallies& tallies, const CopiedPages& copies,
                             Symbolizer& symbols) {
  return added_up(weighted_all(tallies.all(), copies), symbols);
}

NewMemory new_memory_of(const Tallies& tallies, const std::map<std::uint64_t, HeldPages>& pages,
                        Symbolizer& symbols) {
  constexpr std::size_t kMostStacks = 1000;
  std::map<std::uint64_t, Tally> held;
  CopiedPages copies;
  for (const auto& [id, its] : pages) copies[id] = its.pages;
  for (const auto& [id, tally] : tallies.all())
    if (const auto its = pages.find(id); its != pages.end()) held[id] = tally.held(its->second);
  const std::vector<Weighted> all = weighted_all(held, copies);
  SampledCopies sums = added_up(all, symbols);
  std::map<NewMemoryCause, CauseSum> causes;
  std::map<StackAndCause, EstimatedSum> found;
  for (const Weighted& each : all) {
    for (const auto& [cause, part] : new_causes(each, symbols, found)) {
      CauseSum& sum = causes[cause];
      sum.samples += part.samples;
      sum.copies += part.copies;
      if (each.tally->is_forked)
        sum.most = std::max(sum.most, part.copies / static_cast<double>(part.processes));
      else sum.unforked += part.copies;
      for (const auto& [maker, its] : part.makers) sum.makers[maker] += its;
    }
  }
  NewMemory result{sums.samples, std::move(sums.sites), std::move(sums.mappings), {},
                   {},           sums.python_unread};
  result.causes = most_of(causes, [](const NewMemoryCause& cause, const CauseSum& sum) {
    return NewCause{
        cause,          sum.samples, rounded(sum.copies), rounded(sum.unforked), rounded(sum.most),
        main_maker(sum)};
  });
  const auto stack_of = [](const StackAndCause& key, const EstimatedSum& sum) {
    return FoldedStack{key.first, sum.samples, rounded(sum.copies), key.second};
  };
  result.stacks = most_of(found, stack_of, kMostStacks);
  return result;
}

}  // namespace cowshed::cow
