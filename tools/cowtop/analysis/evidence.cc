#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <map>

#include <cowshed/cow/cause_names.h>
#include <cowshed/tools/cowtop/analysis/evidence.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/text/causes.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

// What a remedy against copies must save a part of.
std::uint64_t all_of(const Summary& summary) {
  return summary.copied_bytes + (summary.has_new_memory() ? summary.new_bytes : 0);
}

// Without the copies of the children of a shell, say, which then ran programs.
bool have_copied(const Summary& summary) {
  return !summary.is_little && (summary.sharers > 0 || summary.ran == 0);
}

std::uint64_t bytes_of(std::string_view cause, const Evidence& evidence) {
  const Share* share = share_of(cause, evidence);
  return share == nullptr ? 0 : share->bytes;
}

// If they are much of all.  `further`: more that the remedy may save; `doubtful`: less.
Offers of_copies(std::uint64_t bytes, const Evidence& evidence, std::uint64_t further = 0,
                 std::uint64_t doubtful = 0) {
  const Summary& summary = *evidence.summary;
  if (!have_copied(summary) || !is_much(bytes, all_of(summary))) return {};
  const std::uint64_t all = summary.copied_bytes;
  const std::uint64_t most =
      at_most(std::min(bytes + further, all), all, evidence.measurement->sampled);
  return {{most, "", is_sure(bytes - doubtful, most)}};
}

// Reads that count write to the objects that a collector marks: most then have a count instead.
// Of Python, the types tell which.
std::uint64_t counted_instead(const Remedy& remedy, const Evidence& evidence) {
  if (remedy.cause != cow::kGarbageCollector) return 0;
  const std::uint64_t collected = bytes_of(cow::kGarbageCollector, evidence);
  const std::uint64_t counted = bytes_of(cow::kReferenceCount, evidence);
  return is_part(counted, counted + collected, kShownOfAll) ? collected : 0;
}

// What is not counted is not collected.
std::uint64_t collected_too(const Remedy& remedy, const Evidence& evidence) {
  return remedy.cause == cow::kReferenceCount ? bytes_of(cow::kGarbageCollector, evidence) : 0;
}

// By the functions that copy for the cause, for others.
std::uint64_t by_the_same_functions(std::string_view cause, const Evidence& evidence) {
  struct Copies {
    std::uint64_t all = 0;
    std::uint64_t of_cause = 0;
  };
  std::uint64_t pages = 0;
  for (const cow::ProcessCopies& process : evidence.measurement->processes) {
    if (!process.sampled) continue;
    std::map<std::string_view, Copies> functions;
    for (const cow::FoldedStack& each : process.sampled->stacks) {
      const std::string_view stack = each.folded;
      Copies& copies = functions[stack.substr(stack.rfind(';') + 1)];
      copies.all += each.estimated_copies;
      if (each.cause == cause) copies.of_cause += each.estimated_copies;
    }
    for (const auto& [function, copies] : functions)
      if (is_part(copies.of_cause, copies.all, kMuchOfAll)) pages += copies.all - copies.of_cause;
  }
  return pages * cow::kPageSize;
}

// Whether a function of malloc hands out a block: by the innermost name that tells.
bool hands_out(const cow::FoldedStack& stack) {
  constexpr std::size_t kInnermost = 3;
  std::string_view rest = stack.folded;
  for (std::size_t i = 0; i < kInnermost && !rest.empty(); ++i) {
    const std::string_view name = rest.substr(rest.rfind(';') + 1);
    rest.remove_suffix(std::min(rest.size(), name.size() + 1));
    if (name.find("free") != name.npos || name.find("delete") != name.npos) return false;
    for (const char* word : {"malloc", "calloc", "realloc", "memalign", "operator new"})
      if (name.find(word) != name.npos && name != "malloc_consolidate") return true;
  }
  return false;
}

// Copies because malloc handed out a block that was free.
struct ReusedBlocks {
  std::uint64_t all = 0;
  std::uint64_t most = 0;  // of one process, at most
};
ReusedBlocks reused_blocks(const Evidence& evidence) {
  ReusedBlocks reused;
  for (const cow::ProcessCopies& process : evidence.measurement->processes) {
    if (!process.sampled) continue;
    std::uint64_t bytes = 0;
    for (const cow::FoldedStack& each : process.sampled->stacks)
      if (each.cause == cow::kFreeList && hands_out(each))
        bytes += each.estimated_copies * cow::kPageSize;
    reused.all += bytes;
    const std::uint64_t all = process.all_copied_pages().value_or(0) * cow::kPageSize;
    reused.most = std::max(reused.most, at_most(bytes, all, process.sampled) / process.processes);
  }
  return reused;
}

// Python's collections were the first to write to these pages, but counts are written to others of
// the same type: without the collections, counts would have copied them.
std::uint64_t collected_and_counted(const cow::Measurement& measurement) {
  std::uint64_t pages = 0;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.sampled) continue;
    struct Writers {
      std::uint64_t collections = 0;
      std::uint64_t counts = 0;
    };
    std::map<std::string_view, Writers> types;
    for (const cow::FoldedStack& each : process.sampled->stacks) {
      if (each.object.empty()) continue;
      if (each.cause == cow::kGarbageCollector)
        types[each.object].collections += each.estimated_copies;
      if (each.cause == cow::kReferenceCount) types[each.object].counts += each.estimated_copies;
    }
    for (const auto& [type, writers] : types)
      if (is_part(writers.counts, writers.counts + writers.collections, kMuchOfAll))
        pages += writers.collections;
  }
  return pages * cow::kPageSize;
}

// What a parent copies while its children live, if that is most; for one child, which gives it back
// at its end.
std::uint64_t copied_by_a_parent(const Summary& summary) {
  if (summary.groups.empty()) return 0;
  const ProcessGroup& top = summary.groups.front();
  if (!top.is_parent || top.forks == 0 || top.most_copied < kLeastBytes) return 0;
  const auto most = std::ranges::find(summary.parents, top.pid, &ParentCopies::parent);
  return most == summary.parents.end() ? top.copied_bytes.value_or(0) : most->copied_bytes;
}

// Of which the parent with most copies made the most while it was the only one; null: of none.
const cow::ProcessCopies* only_child(const Evidence& evidence) {
  const auto& parents = evidence.summary->parents;
  const auto most =
      std::ranges::find(parents, evidence.summary->groups.front().pid, &ParentCopies::parent);
  if (most == parents.end()) return nullptr;
  const auto& processes = evidence.measurement->processes;
  const auto child = std::ranges::find(processes, most->child, &cow::ProcessCopies::pid);
  return child == processes.end() ? nullptr : &*child;
}

bool is_of_dlopen(const cow::CodeSite& site) {
  return std::ranges::any_of(site.stack, [](const cow::Frame& frame) {
    return frame.function == "_dl_open" || frame.function == "dl_open_worker";
  });
}

// LD_BIND_NOW does nothing for a library that a child loads.
bool relocates_for_dlopen(const cow::Measurement& measurement) {
  std::uint64_t of_dlopen = 0;
  std::uint64_t others = 0;
  if (measurement.sampled) {
    for (const cow::CodeSite& site : measurement.sampled->sites) {
      const bool relocates = std::ranges::any_of(site.stack, [](const cow::Frame& frame) {
        return cow::base_name(frame.module).starts_with("ld-linux");
      });
      if (relocates) (is_of_dlopen(site) ? of_dlopen : others) += site.estimated_copies;
    }
  }
  return of_dlopen > others;
}

Offers of_relocations(const Summary& summary) {
  const std::uint64_t bytes = summary.relocated_bytes;
  const bool is_worth = is_much(bytes, summary.copied_bytes + summary.file_bytes) &&
                        bytes >= summary.sharers * kLeastBytes;
  return is_worth ? Offers{{bytes}} : Offers();
}

}  // namespace

std::uint64_t at_most(std::uint64_t bytes, std::uint64_t all,
                      const std::optional<cow::SampledCopies>& sampled) {
  constexpr double kErrors = 2;
  if (!sampled || sampled->samples == 0 || bytes >= all) return bytes;
  const double part = static_cast<double>(bytes) / static_cast<double>(all);
  const double error =
      kErrors * std::sqrt(part * (1 - part) / static_cast<double>(sampled->samples));
  return static_cast<std::uint64_t>(std::min(part + error, 1.0) * static_cast<double>(all));
}

std::uint64_t pickling_bytes(const cow::Measurement& measurement) {
  std::uint64_t bytes = 0;
  if (!measurement.sampled) return bytes;
  for (const cow::CodeSite& site : measurement.sampled->sites)
    if (std::ranges::any_of(site.stack, [](const cow::Frame& frame) {
          return frame.is_python && frame.function.ends_with("ForkingPickler.dumps");
        }))
      bytes += site.estimated_copies * cow::kPageSize;
  return bytes;
}

std::uint64_t at_once(const Summary& summary) {
  const std::uint64_t all = std::min(summary.most_at_once, summary.processes);
  return std::max<std::uint64_t>(all, 2) - 1;  // without the parent
}

Offers worth_a_word(Offer offer) {
  return offer.saves_bytes < kLeastBytes ? Offers() : Offers{std::move(offer)};
}

const Share* share_of(std::string_view cause, const Evidence& evidence) {
  const auto found = std::ranges::find(evidence.summary->causes, cause, &Share::name);
  return found == evidence.summary->causes.end() ? nullptr : &*found;
}

std::uint64_t bytes_against(const Remedy& remedy, const Evidence& evidence) {
  const std::uint64_t bytes = bytes_of(remedy.cause, evidence);
  if (remedy.when != &of_python_cause || remedy.cause == cow::kCachedHash) return bytes;
  const std::uint64_t by_both = std::min(bytes_of(cow::kGarbageCollector, evidence),
                                         collected_and_counted(*evidence.measurement));
  return remedy.cause == cow::kReferenceCount ? bytes + by_both : bytes - by_both;
}

Offers of_cause(const Remedy& remedy, const Evidence& evidence) {
  return of_copies(bytes_of(remedy.cause, evidence), evidence, collected_too(remedy, evidence),
                   counted_instead(remedy, evidence));
}

Offers of_first_run(const Remedy& remedy, const Evidence& evidence) {
  return of_copies(bytes_of(remedy.cause, evidence), evidence,
                   by_the_same_functions(remedy.cause, evidence));
}

Offers of_own_cause(const Remedy& remedy, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const bool is_databases =
      summary.language == cow::Language::native && copied_by_a_parent(summary) > 0;
  if (is_databases) return {};
  Offers offers = of_cause(remedy, evidence);
  const auto cause = std::ranges::find(summary.causes, remedy.cause, &Share::name);
  if (offers.empty() || cause == summary.causes.end() || cause->remark.empty()) return offers;
  // A library may write to its own objects where the program only reads.
  return {{0, fmt::format("see whether CODE's lines ask {} to write, or only to read: what is "
                          "written belongs out of the data that is shared",
                          cause->remark)}};
}

Offers of_python_cause(const Remedy& remedy, const Evidence& evidence) {
  const std::uint64_t bytes = bytes_against(remedy, evidence);
  const std::uint64_t stopped = bytes_of(remedy.cause, evidence) + collected_too(remedy, evidence);
  Offers offers = of_copies(bytes, evidence, stopped - std::min(bytes, stopped));
  if (!offers.empty() && evidence.summary->is_frozen_before_forks)
    offers.front().text =
        evidence.summary->is_frozen_in_part
            ? "print the result of cowshed.freeze(): register_children() reaches what it counts as "
              "left"
            : "call cowshed.freeze() once more, after the last data is loaded";
  return offers;
}

Offers of_forks(const Remedy& remedy, const Evidence& evidence) {
  const bool is_worth = !of_cause(remedy, evidence).empty();
  return is_worth ? Offers{{evidence.summary->copied_bytes}} : Offers();
}

Offers of_none(const Remedy& /*remedy*/, const Evidence& /*evidence*/) { return {}; }

Offers of_freed_blocks(const Remedy& remedy, const Evidence& evidence) {
  if (of_own_cause(remedy, evidence).empty()) return {};
  const std::uint64_t bytes = bytes_of(remedy.cause, evidence);
  return of_copies(bytes - std::min(bytes, reused_blocks(evidence).all), evidence);
}

// The blocks are then new memory: only the parent has less.
Offers of_reused_blocks(const Remedy& remedy, const Evidence& evidence) {
  const ReusedBlocks reused = reused_blocks(evidence);
  if (of_own_cause(remedy, evidence).empty() || of_copies(reused.all, evidence).empty()) return {};
  return worth_a_word({reused.most});
}

Offers of_exits(const Remedy& /*remedy*/, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const bool is_worth = is_much(summary.exit_bytes, summary.copied_bytes + summary.exit_bytes) &&
                        summary.exit_bytes >= summary.sharers * kLeastBytes;
  return is_worth ? Offers(1) : Offers();
}

// COPIED has only few of these: most are first writes to files.
Offers of_dlopen(const Remedy& /*remedy*/, const Evidence& evidence) {
  if (!relocates_for_dlopen(*evidence.measurement)) return {};
  Offers offers = of_relocations(*evidence.summary);
  for (Offer& each : offers)  // the parent then has what a child had
    each.saves_bytes -= each.saves_bytes / std::max<std::uint64_t>(evidence.summary->sharers, 1);
  return offers;
}

Offers of_binding(const Remedy& /*remedy*/, const Evidence& evidence) {
  return relocates_for_dlopen(*evidence.measurement) ? Offers() : of_relocations(*evidence.summary);
}

Offers of_missing_names(const Remedy& /*remedy*/, const Evidence& evidence) {
  std::uint64_t all = 0;
  std::uint64_t nameless = 0;
  std::map<std::string, std::uint64_t> files;
  for (const Share& site : evidence.summary->sites) {
    all += site.bytes;
    if (site.nameless_in.empty()) continue;
    nameless += site.bytes;
    files[site.nameless_in] += site.bytes;
  }
  if (evidence.summary->is_little || nameless == 0 || !is_part(nameless, all, kHalfOfAll))
    return {};
  const auto most = std::ranges::max_element(files, {}, [](auto& each) { return each.second; });
  return {{0, fmt::format("install the debug symbols of {}, to see its functions in CODE",
                          printable(cow::base_name(most->first)))}};
}

Offers of_pickling(const Remedy& /*remedy*/, const Evidence& evidence) {
  // Receivers make objects, for which Python collects.
  return of_copies(pickling_bytes(*evidence.measurement), evidence,
                   bytes_of(cow::kGarbageCollector, evidence));
}

Offers of_parent(const Remedy& /*remedy*/, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  std::uint64_t bytes = summary.language == cow::Language::native ? copied_by_a_parent(summary) : 0;
  if (!have_copied(summary) || bytes == 0) return {};
  // Its child wrote to these pages after it, and would have copied them instead.
  if (const cow::ProcessCopies* child = only_child(evidence))
    bytes -= std::min(bytes, child->reused_pages.value_or(0) * cow::kPageSize);
  return bytes < kLeastBytes ? Offers() : Offers{{bytes}};
}

// Small processes are left alone unless told otherwise.
Offers of_unchanged(const Remedy& remedy, const Evidence& evidence) {
  std::uint64_t bytes = 0;
  for (const cow::ProcessCopies& each : evidence.measurement->processes)
    if (each.alike) bytes += each.alike->unchanged_bytes.value_or(0);
  if (bytes < kLeastNew) return {};
  const ProcessGroup* group = evidence.summary->most_shared();
  const std::uint64_t shared = group != nullptr ? group->shared_bytes.value_or(0) : 0;
  std::string text(remedy.text);
  if (shared < kFrozenFrom)
    text.replace(text.rfind(')'), 1, fmt::format(" --above {}MiB)", shared >> 21U));
  return {{bytes, std::move(text)}};
}

Offers of_equal_pages(const Remedy& /*remedy*/, const Evidence& evidence) {
  std::uint64_t bytes = 0;
  for (const cow::ProcessCopies& each : evidence.measurement->processes)
    if (each.alike)
      bytes += std::max(each.alike->same_address_bytes, each.alike->unchanged_bytes.value_or(0));
  return bytes >= kLeastNew ? Offers(1) : Offers();
}

Offers of_many_arenas(const Remedy& /*remedy*/, const Evidence& evidence) {
  const bool fits =
      evidence.threads >= kManyThreads && evidence.summary->most_peak_bytes >= kLeastHeap;
  return fits ? Offers(1) : Offers();
}

Offers of_own_memory(const Remedy& /*remedy*/, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  return is_much(summary.new_bytes, summary.most_peak_bytes) ? Offers(1) : Offers();
}

}  // namespace cowshed::cowtop
