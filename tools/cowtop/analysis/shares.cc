#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/shares.h>
#include <cowshed/tools/cowtop/text/causes.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

class ShareSums {
 public:
  Share& operator[](const std::string& name) {
    const auto [entry, is_new] = index_.try_emplace(name, shares_.size());
    if (is_new) shares_.emplace_back().name = name;
    return shares_[entry->second];
  }
  Share& operator[](const cow::CodeSite& site) {
    Share& share = (*this)[site_name(site)];
    if (site.frames.empty()) return share;
    const cow::Frame& place = site.frames.back();
    if (place.function.empty()) share.nameless_in = place.module;
    // "<string>" of Python is no file.
    if (place.file.starts_with('<')) return share;
    share.file = place.file;
    share.line = place.line;
    return share;
  }
  // The most first.
  std::vector<Share> of(std::uint64_t all) && {
    for (Share& share : shares_)
      if (all > 0) share.of_all = static_cast<double>(share.bytes) / static_cast<double>(all);
    std::ranges::stable_sort(shares_, std::greater<>(), &Share::bytes);
    return std::move(shares_);
  }

 private:
  std::map<std::string, std::size_t> index_;
  std::vector<Share> shares_;
};

struct ExplainingSamples {
  const cow::SampledCopies* samples;
  double part;  // of their copies, those before the program's exit
};

// The part of a process's copies before its program's end.
double part_before_exit(const cow::ForkCopies& copies) {
  const auto copied = static_cast<double>(copies.written_pages);
  return copies.exit_pages == 0 ? 1 : copied / (copied + static_cast<double>(copies.exit_pages));
}

std::vector<ExplainingSamples> explaining_samples(const cow::Measurement& measurement,
                                                  const std::vector<cow::ForkCopies>& copies) {
  const auto& processes = measurement.processes;
  std::vector<ExplainingSamples> result;
  bool are_whole = true;
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const bool explains = explains_copies(processes[i], copies[i]);
    const double part = part_before_exit(copies[i]);
    are_whole = are_whole && explains && part == 1;
    if (explains && processes[i].sampled) result.push_back({&*processes[i].sampled, part});
  }
  if (!are_whole) return result;
  result.clear();
  if (measurement.sampled) result.push_back({&*measurement.sampled, 1});
  return result;
}

std::vector<Share> mappings_of(const cow::Measurement& measurement,
                               const std::vector<ExplainingSamples>& explaining,
                               std::uint64_t all) {
  ShareSums shares;
  std::uint64_t rest = all;
  const auto count = [&](Share& share, std::uint64_t pages) {
    share.bytes += pages * cow::kPageSize;
    rest -= std::min(rest, pages * cow::kPageSize);
  };
  std::set<std::string_view> files;
  for (const cow::ProcessCopies& process : measurement.processes)
    for (const cow::ArenaCopies& file : process.files) {
      files.insert(file.name);
      Share& share = shares[file.name];
      count(share, file.copied_pages);
      share.remark = breakable(mib(file.bytes)) + ", mapped privately";
    }
  const auto is_of_file = [&](std::string_view name) {
    const std::string_view base = cow::base_name(name);
    return files.contains(base.substr(0, base.find(" (deleted)")));  // a memfd's
  };
  for (const cow::ProcessCopies& process : measurement.processes) {
    for (const cow::ArenaCopies& arena : process.arenas) {
      Share& share = shares[std::string(cow::kArena) + arena.name];
      count(share, arena.copied_pages);
      if (arena.bytes) share.remark = breakable(mib(arena.bytes)) + ", frozen";
    }
  }
  std::map<std::string, double> estimates;
  double estimated = 1;
  for (const auto& [samples, part] : explaining) {
    for (const cow::MappingCopies& mapping : samples->mappings) {
      if (mapping.name.starts_with(cow::kArena) || is_of_file(mapping.name)) continue;
      const double bytes = part * static_cast<double>(mapping.estimated_copies * cow::kPageSize);
      estimates[mapping.name] += bytes;
      estimated += bytes;
    }
  }
  // Samples whose mapping is unknown may be of those that are counted.
  const double scale = std::min(1.0, static_cast<double>(rest) / estimated);
  for (const auto& [name, bytes] : estimates)
    shares[name].bytes += static_cast<std::uint64_t>(bytes * scale);
  return std::move(shares).of(all);
}

// The causes of the process's COPIED.  Relocations explain its first writes to files, which are not
// in it.
std::map<std::string, double> bytes_of_causes(const cow::ProcessCopies& process,
                                              const cow::ForkCopies& copies) {
  const auto all = static_cast<double>(process.all_copied_pages().value_or(0) * cow::kPageSize);
  const auto of_files = static_cast<double>(first_writes_to_files(process, copies));
  std::map<std::string, double> causes;
  double sum = 0;
  for (const auto& [name, share, samples, evidence, library] : *process.patterns) {
    if (name == cow::kProgramExit) continue;
    const double files = name == cow::kRelocation ? of_files : 0;
    const double bytes = std::max(share * all - files, 0.0);
    causes[name] += bytes;
    sum += bytes;
  }
  const auto copied = static_cast<double>(copies.written_pages * cow::kPageSize);
  if (sum > copied)
    for (auto& [name, bytes] : causes) bytes *= copied / sum;
  return causes;
}

std::vector<Share> causes_of(const cow::Measurement& measurement,
                             const std::vector<cow::ForkCopies>& copies,
                             const std::vector<cow::Language>& languages, std::uint64_t all) {
  ShareSums shares;
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    if (!process.patterns || !explains_copies(process, copies[i])) continue;
    for (const auto& [name, estimate] : bytes_of_causes(process, copies[i])) {
      Share& share = shares[name];
      const auto bytes = static_cast<std::uint64_t>(estimate);
      share.bytes += bytes;
      if (bytes >= share.most_bytes) {
        share.language = languages[i];
        const auto pattern = std::ranges::find(*process.patterns, name, &cow::CopyPattern::pattern);
        share.remark = pattern->library;
      }
      share.most_bytes = std::max(share.most_bytes, bytes);
    }
  }
  return std::move(shares).of(all);
}

bool is_at_exit(const cow::CodeSite& site) { return cow::ends_of_program(site.stack.all()) > 0; }

// The kernel's and the dynamic linker's work for a program that was executed: no fork caused it.
bool is_at_start(const cow::CodeSite& site) {
  if (site.stack.empty()) return false;
  const cow::Frame& last = site.stack.back();
  return site.stack.front().function == "[execve(2)]" ||
         (last.function == "_start" && cow::base_name(last.module).starts_with("ld-linux"));
}

std::vector<Share> sites_of(const std::vector<ExplainingSamples>& explaining, std::uint64_t all) {
  ShareSums shares;
  for (const auto& [samples, part] : explaining) {
    for (const cow::CodeSite& site : samples->sites) {
      const std::uint64_t bytes = site.estimated_copies * cow::kPageSize;
      if (is_at_start(site)) all -= std::min(all, bytes);
      else if (part == 1 || !is_at_exit(site)) shares[site].bytes += bytes;
    }
  }
  return std::move(shares).of(all);
}

// `part`: without those at a program's end, which destroys objects of all types.
std::vector<Share> types_of(const std::vector<ExplainingSamples>& explaining, std::uint64_t all) {
  ShareSums shares;
  for (const auto& [samples, part] : explaining)
    for (const cow::TypeCopies& type : samples->types)
      shares[type.name].bytes += static_cast<std::uint64_t>(
          part * static_cast<double>(type.estimated_copies * cow::kPageSize));
  return std::move(shares).of(all);
}

std::uint64_t pages_of(const auto& sampled) {
  std::uint64_t pages = 0;
  for (const auto& each : sampled) pages += each.estimated_copies;
  return pages;
}

// `all`: also what was given back, and what the list leaves out.
template <class Each>
ShareSums sums_of_new(const std::vector<Each>& sampled, std::uint64_t held, std::uint64_t all,
                      auto name) {
  ShareSums shares;
  for (const Each& each : sampled)
    shares[name(each)].bytes += static_cast<std::uint64_t>(
        static_cast<double>(held) * static_cast<double>(each.estimated_copies) /
        static_cast<double>(std::max<std::uint64_t>(all, 1)));
  return shares;
}

void add_new_memory(const cow::NewMemory& memory, std::uint64_t bytes, std::uint64_t unfaulted,
                    Shares& shares) {
  const auto name = [](const cow::NewCause& each) { return name_of(each.cause); };
  const std::uint64_t held = bytes - unfaulted;
  const std::uint64_t all = pages_of(memory.causes);
  ShareSums sums = sums_of_new(memory.causes, held, all, name);
  for (const cow::NewCause& each : memory.causes) {
    Share& share = sums[name(each)];
    share.new_cause = each.cause;
    share.remark = library_in_words(each.library);
    const auto its = static_cast<double>(std::max(each.estimated_copies, each.most_copies));
    const auto part = [&](std::uint64_t copies) {
      return static_cast<std::uint64_t>(static_cast<double>(copies) / its *
                                        static_cast<double>(share.bytes));
    };
    if (its == 0) continue;
    share.most_bytes = part(each.most_copies);
    share.forked_bytes = share.bytes - part(each.unforked_copies);
  }
  if (unfaulted > 0) sums[std::string(cow::kNoWriteFault)].bytes = unfaulted;
  shares.new_causes = std::move(sums).of(bytes);
  // A program imports much on many lines, of which the list has the first 50.
  shares.new_sites =
      sums_of_new(memory.sites, held, std::max(all, pages_of(memory.sites)), std::identity())
          .of(bytes);
}

double python_unread_of(const std::vector<ExplainingSamples>& explaining) {
  std::uint64_t all = 0;
  std::uint64_t unread = 0;
  for (const auto& [samples, part] : explaining) {
    all += samples->samples;
    unread += samples->python_unread;
  }
  return all == 0 ? 0 : static_cast<double>(unread) / static_cast<double>(all);
}

}  // namespace

std::vector<Share> causes_of(const cow::ProcessCopies& process, const cow::ForkCopies& copies) {
  ShareSums shares;
  if (process.patterns && explains_copies(process, copies))
    for (const auto& [name, estimate] : bytes_of_causes(process, copies))
      if (const auto bytes = static_cast<std::uint64_t>(estimate)) shares[name].bytes = bytes;
  return std::move(shares).of(copies.copied_bytes().value_or(0));
}

bool explains_copies(const cow::ProcessCopies& process, const cow::ForkCopies& copies) {
  const std::uint64_t copied = copies.written_pages;
  return process.execs == 0 || process.role == cow::Role::root || copies.forks > 0 ||
         (copied * cow::kPageSize >= kLeastBytes * process.processes &&
          is_part(copied, process.all_copied_pages().value_or(0), kHalfOfAll));
}

std::uint64_t first_writes_to_files(const cow::ProcessCopies& process,
                                    const cow::ForkCopies& copies) {
  const std::uint64_t all = process.all_copied_pages().value_or(0);
  const std::uint64_t others = copies.exit_pages + process.copied_merged_pages.value_or(0);
  const std::uint64_t written = copies.copied_pages ? copies.written_pages : all;
  return (all - std::min(all, written + others)) * cow::kPageSize;
}

Shares shares_of(const cow::Measurement& measurement, const std::vector<cow::ForkCopies>& copies,
                 const std::vector<cow::Language>& languages, std::uint64_t copied_bytes,
                 std::uint64_t new_bytes) {
  std::uint64_t explained_bytes = 0;
  std::uint64_t unfaulted_bytes = 0;
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    unfaulted_bytes += copies[i].unfaulted_bytes;
    if (explains_copies(process, copies[i]))
      explained_bytes +=
          process.all_copied_pages().value_or(0) * cow::kPageSize - copies[i].exit_bytes();
  }
  const auto explaining = explaining_samples(measurement, copies);
  Shares shares;
  shares.mappings = mappings_of(measurement, explaining, explained_bytes);
  shares.causes = causes_of(measurement, copies, languages, copied_bytes);
  shares.types = types_of(explaining, explained_bytes);
  shares.sites = sites_of(explaining, explained_bytes);
  if (measurement.new_memory && new_bytes > 0)
    add_new_memory(*measurement.new_memory, new_bytes, unfaulted_bytes, shares);
  shares.python_unread = python_unread_of(explaining);
  return shares;
}

Shares shares_of_process(const cow::Measurement& measurement, const cow::ProcessCopies& process,
                         const cow::ForkCopies& copies, std::uint64_t new_bytes) {
  cow::Measurement alone;
  alone.processes = {process};
  alone.sampled = process.sampled;
  alone.new_memory = measurement.new_memory;
  return shares_of(alone, {copies}, {cow::Language::native}, copies.copied_bytes().value_or(0),
                   new_bytes);
}

}  // namespace cowshed::cowtop
