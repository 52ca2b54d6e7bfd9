#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <fmt/format.h>
#include <span>

#include <cowshed/cow/cause_names.h>
#include <cowshed/tools/cowtop/analysis/evidence.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/new_evidence.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

// How a server loads the application before it forks.
std::string preloading(const Summary& summary) {
  struct Server {
    std::string_view comm;
    std::string_view option;
  };
  constexpr std::array kServers = {
      Server{"gunicorn", "gunicorn: --preload"}, Server{"starman", "Starman: --preload-app"},
      Server{"puma", "Puma: preload_app!, or fork_worker for what requests fill"},
      Server{"unicorn", "Unicorn: preload_app"}, Server{"uwsgi", "uWSGI: without lazy-apps"}};
  for (const ProcessGroup& group : summary.groups)
    for (const Server& server : kServers)
      if (group.own.most >= kLeastBytes && group.comm.starts_with(server.comm))
        return fmt::format(" ({})", server.option);
  return "";
}

// Whether a name has the word: "python3 -m uvicorn", "php-fpm8.2", but not "node_exporter".
bool has_word(std::string_view name, std::string_view word) {
  const auto is_letter = [](char each) {
    return std::isalpha(static_cast<unsigned char>(each)) != 0 || each == '_';
  };
  for (auto at = name.find(word); at != name.npos; at = name.find(word, at + 1)) {
    const auto end = at + word.size();
    if ((at == 0 || !is_letter(name[at - 1])) && (end == name.size() || !is_letter(name[end])))
      return true;
  }
  return false;
}

// The servers whose workers share no memory, by their names or those of whom they start, and those
// whose name each worker has.
constexpr std::array<std::string_view, 4> kStarters = {"uvicorn", "loky", "pytest", "supervisord"};
constexpr std::array<std::string_view, 3> kWorkers = {"node", "postgres", "php-fpm"};

std::string_view server_of(const ProcessGroup& group) {
  const auto found = std::ranges::find_if(
      kWorkers, [&](std::string_view each) { return has_word(group.comm, each); });
  return found == kWorkers.end() ? std::string_view() : *found;
}

// Their masters run none of the application's code, so that they cannot build anything for workers.
bool is_of_servers(const Summary& summary) {
  return std::ranges::any_of(summary.groups, [](const ProcessGroup& group) {
    return group.own.most >= kLeastBytes && !server_of(group).empty();
  });
}

// What the child with the most of a cause's new memory has of it.
std::uint64_t most_of_one(const Share& cause, const Summary& summary) {
  return cause.most_bytes > 0 ? cause.most_bytes : cause.forked_bytes / summary.holders;
}

// What the children that have a cause's memory save if they share it: one has it still.
std::uint64_t saved_by_sharing(const Share& cause, const Summary& summary) {
  const std::uint64_t most = most_of_one(cause, summary);
  const std::uint64_t children = std::min(at_once(summary), summary.processes);
  return std::min(cause.forked_bytes - most, most * (children - 1));
}

// As many names as a line of the report has room for, the first in any case.
std::string module_names(const std::vector<std::string>& names) {
  constexpr std::size_t kColumns = 12;
  std::string text = names.front();
  std::size_t shown = 1;
  for (; shown < names.size() && text.size() + 2 + names[shown].size() <= kColumns; ++shown)
    text += ", " + names[shown];
  const std::size_t left = names.size() - shown;
  return left == 0 ? text : fmt::format("{} and {} more", text, left);
}

// The copies that children make while they import.
std::uint64_t copied_by_imports(const Evidence& evidence) {
  std::uint64_t pages = 0;
  for (const cow::ProcessCopies& process : evidence.measurement->processes) {
    if (!process.sampled || process.role != cow::Role::child) continue;
    for (const cow::CodeSite& site : process.sampled->sites)
      if (std::ranges::any_of(site.stack, cow::is_import)) pages += site.estimated_copies;
  }
  const std::uint64_t all = evidence.summary->copied_bytes;
  return at_most(std::min(pages * cow::kPageSize, all), all, evidence.measurement->sampled);
}

// The modules have names once their code runs.
Offer against_imports(std::span<const Share* const> imports, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  Offer offer;
  std::vector<std::string> modules;
  std::uint64_t bytes = 0;
  std::uint64_t named = 0;
  for (const Share* each : imports) {
    offer.saves_bytes += saved_by_sharing(*each, summary);
    bytes += each->forked_bytes;
    if (each->new_cause.module.empty()) continue;
    modules.push_back(each->new_cause.module);
    named += each->forked_bytes;
  }
  if (offer.saves_bytes >= kLeastBytes) {
    const std::uint64_t least = offer.saves_bytes;
    offer.saves_bytes += copied_by_imports(evidence);
    offer.is_known = is_sure(least, offer.saves_bytes);
  }
  if (is_part(named, bytes, kHalfOfAll))
    offer.text =
        fmt::format("import {} before the fork{}", module_names(modules), preloading(summary));
  return offer;
}

// Much of the new memory that children hold has this cause; null: it has not.
const Share* much_new(std::string_view cause, const Summary& summary) {
  if (!summary.has_new_memory() || summary.holders == 0) return nullptr;
  const auto found = std::ranges::find(summary.new_causes, cause, &Share::name);
  const bool is_found = found != summary.new_causes.end();
  return is_found && is_much(found->forked_bytes, summary.new_bytes) ? &*found : nullptr;
}

// Children that build the same touch as many pages.  Those that answer requests take memory and
// give it back, each at its own pace.
bool build_alike(const Evidence& evidence) {
  const auto& processes = evidence.measurement->processes;
  const std::vector<cow::ForkCopies> copies = cow::fork_copies(*evidence.measurement);
  Sizes touched;
  for (std::size_t i = 0; i < processes.size(); ++i)
    if (cow::goes_on(processes[i]) &&
        copies[i].new_bytes.value_or(0) / processes[i].processes >= kLeastBytes)
      touched.add(processes[i].touched_pages() * cow::kPageSize, processes[i].processes);
  const std::uint64_t apart = touched.most - touched.least;
  return apart <= kLeastBytes || !is_part(apart, touched.most, kRestOfAll);
}

// Whether most that was received is read from programs that were started: those share no memory.
bool is_of_programs(const Evidence& evidence) {
  const bool have_run = evidence.summary->ran > 0;
  std::uint64_t all = 0;
  std::uint64_t of_programs = 0;
  for (const cow::FoldedStack& each : evidence.measurement->new_memory->stacks) {
    if (each.cause != cow::kReceived) continue;
    const std::string_view text = each.folded;
    const bool is_python = text.find(".py:") != text.npos;
    const bool is_of_program =
        is_python ? text.find("(subprocess.py:") != text.npos : have_run && text.ends_with("(2)]");
    all += each.estimated_copies;
    if (is_of_program) of_programs += each.estimated_copies;
  }
  return of_programs > 0 && is_part(of_programs, all, kHalfOfAll);
}

bool is_named(std::string_view word, const Evidence& evidence) {
  return std::ranges::any_of(evidence.measurement->processes, [&](const auto& each) {
    return has_word(each.name(), word) || has_word(each.script, word);
  });
}

bool is_mostly_received(const Summary& summary) {
  return !summary.new_causes.empty() && summary.new_causes.front().name == cow::kReceived;
}

// Whether few lines of code made most of the new memory, and the group has most of that.
bool is_by_few_lines(const ProcessGroup& group, const Summary& summary) {
  constexpr std::size_t kFew = 3;
  double of_all = 0;
  for (std::size_t i = 0; i < std::min(kFew, summary.new_sites.size()); ++i)
    if (!summary.new_sites[i].file.empty()) of_all += summary.new_sites[i].of_all;
  return is_part(group.held_new.sum, summary.new_bytes, kHalfOfAll) && of_all >= kHalfOfAll;
}

// Several processes of one program that no fork connects, and that hold as much.
struct Started {
  const ProcessGroup* group = nullptr;
  std::optional<std::uint64_t> saves_bytes = {};  // nullopt: what they hold was not seen to be made
};
Started started_alike(const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const ProcessGroup* group = summary.has_new_memory() ? summary.largest_holders() : nullptr;
  if (group == nullptr || group->holders < 2 || !group->held_own.are_alike()) return {};
  const bool is_older = group->is_older && group->shared_bytes.value_or(0) < kLeastBytes;
  const bool are_started = group->has_executed || is_older || group->role == cow::Role::root;
  if (!are_started || is_mostly_received(summary)) return {};
  const std::uint64_t in_use =
      group->held_own.sum - std::min(group->held_own.sum, group->free_bytes);
  if (!is_much(in_use, group->held_own.sum)) return {};
  const bool are_lines = is_by_few_lines(*group, summary) && group->held_new.are_alike();
  if (!are_lines) return {is_older ? group : nullptr};
  const std::uint64_t each = in_use / group->holders;
  // One keeps it, unless that is another process: the one that started them, say.
  const bool has_another = std::ranges::any_of(summary.groups, [&](const ProcessGroup& other) {
    return &other != group && other.holders > 0 && are_alike(std::min(each, other.own.most), each);
  });
  const std::uint64_t all = std::min(group->holders, summary.most_at_once);
  return {group, each * (has_another ? all : all - 1)};
}

// The server of which the processes are; empty: it is not known.
std::string_view server_of(const ProcessGroup& group, const Evidence& evidence) {
  if (const std::string_view its = server_of(group); !its.empty()) return its;
  const auto found = std::ranges::find_if(
      kStarters, [&](std::string_view each) { return is_named(each, evidence); });
  return found == kStarters.end() ? std::string_view() : *found;
}

// What processes hold free.
struct FreeMemory {
  std::uint64_t bytes = 0;
  std::uint64_t trimmable = 0;
  std::uint64_t in_pymalloc = 0;
  std::uint64_t unread = 0;          // what they got since a look
  std::uint64_t mmap_threshold = 0;  // of the one that holds most
};

// nullopt: it is not much of the new memory, nor of what those hold that ran before.
std::optional<FreeMemory> free_memory(std::string_view cause, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const auto found = std::ranges::find(summary.new_causes, cause, &Share::name);
  const bool is_new = found != summary.new_causes.end() && is_much(found->bytes, summary.new_bytes);
  if (!summary.has_new_memory()) return std::nullopt;
  FreeMemory free;
  std::uint64_t most = 0;
  for (const cow::ProcessCopies& process : evidence.measurement->processes) {
    const cow::MemorySample memory = process.memory.value_or(cow::MemorySample());
    const std::uint64_t bytes = memory.free_bytes.value_or(0);
    if (bytes > most) free.mmap_threshold = memory.mmap_threshold_bytes.value_or(0);
    most = std::max(most, bytes);
    free.bytes += bytes;
    free.trimmable += memory.trimmable_bytes.value_or(0);
    free.in_pymalloc += memory.free_in_pymalloc_bytes.value_or(0);
    free.unread += process.touched_pages() * cow::kPageSize -
                   std::min(process.touched_pages(), memory.touched_pages) * cow::kPageSize;
  }
  const std::uint64_t of_cause =
      cause == cow::kFreeInPymalloc ? free.in_pymalloc : free.bytes - free.in_pymalloc;
  if (!is_new && (!summary.new_causes.empty() || !is_much(of_cause, summary.held.sum)))
    return std::nullopt;
  return free;
}

}  // namespace

// malloc_trim() leaves what is at the tops of the arenas of threads.  What is mapped one by one is
// in no arena.
Offers of_free_blocks(const Remedy& remedy, const Evidence& evidence) {
  const auto free = free_memory(remedy.cause, evidence);
  if (!free) return {};
  const bool is_in_malloc = remedy.cause == cow::kFreeInMalloc;
  const std::uint64_t of_malloc = free->bytes - free->in_pymalloc;
  const bool leaves_tops =
      is_in_malloc && is_part(of_malloc - free->trimmable, of_malloc, kMuchOfAll);
  const bool can_map = leaves_tops && free->mmap_threshold > 0;
  const std::uint64_t of_arenas = can_map ? of_malloc : free->trimmable;
  const std::uint64_t saved = is_in_malloc ? of_arenas : free->in_pymalloc;
  const Summary& summary = *evidence.summary;
  const std::uint64_t holders = std::min(summary.holders, summary.most_at_once);
  std::string text(remedy.text);
  if (can_map)
    text = fmt::format(
        "start with GLIBC_TUNABLES=glibc.malloc.mmap_threshold={}: malloc_trim(0) leaves much in "
        "arenas of threads",
        free->mmap_threshold);
  else if (leaves_tops) text += ", and start with MALLOC_ARENA_MAX=1 for the rest";
  return worth_a_word({saved / summary.holders * holders, text,
                       is_sure(saved - std::min(saved, free->unread), saved)});
}

Offers of_started_alike(const Remedy& remedy, const Evidence& evidence) {
  const Started started = started_alike(evidence);
  if (started.group == nullptr || !server_of(*started.group, evidence).empty()) return {};
  if (started.saves_bytes) return worth_a_word({*started.saves_bytes});
  return {
      {0, fmt::format("see by cowtop -- COMMAND which line loads it. If it is the same in each: {}",
                      remedy.text)}};
}

Offers of_server_started(const Remedy& remedy, const Evidence& evidence) {
  const Started started = started_alike(evidence);
  if (started.group == nullptr || server_of(*started.group, evidence) != remedy.cause) return {};
  return {{remedy.no_proof == kSavesNothing ? 0 : started.saves_bytes.value_or(0)}};
}

Offers of_server_grown(const Remedy& remedy, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const ProcessGroup* group = summary.has_new_memory() ? summary.largest_holders() : nullptr;
  return group != nullptr && group->holders > 1 && server_of(*group, evidence) == remedy.cause
             ? Offers(1)
             : Offers();
}

Offers of_arrays_sent(const Remedy& remedy, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const ProcessGroup* group = summary.has_new_memory() ? summary.largest_holders() : nullptr;
  return group != nullptr && group->has_executed && is_named(remedy.cause, evidence) &&
                 is_mostly_received(summary)
             ? Offers(1)
             : Offers();
}

Offers of_library(const Remedy& remedy, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  std::uint64_t bytes = 0;
  for (const Share& each : summary.new_causes)
    if (each.remark.starts_with(remedy.cause)) bytes += each.bytes;
  if (!summary.has_new_memory() || !is_much(bytes, summary.new_bytes)) return {};
  return {{bytes / summary.holders * std::min(summary.holders, summary.most_at_once)}};
}

bool is_of_program(const Remedy& remedy) {
  constexpr std::array kWhen = {&of_server_started, &of_server_grown, &of_arrays_sent, &of_library};
  return std::ranges::find(kWhen, remedy.when) != kWhen.end();
}

// A line for each of two, or one for all where the others are much, too.
Offers of_imports(const Remedy& /*remedy*/, const Evidence& evidence) {
  constexpr std::size_t kMostLines = 2;
  const Summary& summary = *evidence.summary;
  if (!summary.has_new_memory() || summary.holders == 0) return {};
  std::vector<const Share*> imports;
  std::uint64_t others = 0;
  std::size_t alone = 0;
  for (const Share& cause : summary.new_causes) {
    if (cause.new_cause.kind != cow::kImport) continue;
    imports.push_back(&cause);
    if (alone < kMostLines && is_much(cause.forked_bytes, summary.new_bytes)) ++alone;
    else others += cause.forked_bytes;
  }
  if (is_much(others, summary.new_bytes)) return worth_a_word(against_imports(imports, evidence));
  Offers result;
  for (std::size_t i = 0; i < alone; ++i)
    for (Offer& each : worth_a_word(against_imports(std::span(imports).subspan(i, 1), evidence)))
      result.push_back(std::move(each));
  return result;
}

Offers of_sparse_pages(const Remedy& /*remedy*/, const Evidence& evidence) {
  std::uint64_t zeros = 0;
  std::uint64_t compared = 0;
  std::uint64_t huge = 0;
  for (const cow::ProcessCopies& process : evidence.measurement->processes) {
    const std::uint64_t pages = process.zero_filled_pages.value_or(0);
    const bool are_huge =
        process.first_touches &&
        is_part(pages - std::min(pages, *process.first_touches), pages, kHalfOfAll);
    if (!are_huge) continue;
    huge += pages * cow::kPageSize;
    if (!process.alike) continue;
    compared += process.alike->private_bytes;
    zeros += process.alike->zero_bytes;
  }
  if (compared > 0)  // when it was, they may have held less
    zeros = static_cast<std::uint64_t>(static_cast<double>(huge) * static_cast<double>(zeros) /
                                       static_cast<double>(compared));
  const Summary& summary = *evidence.summary;
  return summary.has_new_memory() && is_much(zeros, summary.new_bytes)
             ? Offers{{std::min(zeros, summary.new_bytes)}}
             : Offers();
}

// Whether the children that hold new memory were seen to hold nothing byte for byte.
bool is_nothing_alike(const Evidence& evidence) {
  std::uint64_t all = 0;
  std::uint64_t alike = 0;
  for (const cow::ProcessCopies& process : evidence.measurement->processes) {
    if (!process.alike || !cow::goes_on(process)) continue;
    const cow::AlikeMemory& its = *process.alike;
    all += its.private_bytes;
    alike += std::max(its.same_address_bytes, its.any_address_bytes.value_or(0));
  }
  return is_much(all, evidence.summary->new_bytes) && !is_part(alike, all, kShownOfAll);
}

Offers of_own_data(const Remedy& remedy, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const Share* cause = much_new(remedy.cause, summary);
  if (cause == nullptr || is_of_servers(summary) || !build_alike(evidence)) return {};
  if (!of_sparse_pages(remedy, evidence).empty()) return {};  // alike are the zeros
  if (cause->remark.starts_with("libsqlite3")) return {};     // no connection may cross a fork
  if (is_nothing_alike(evidence))
    return {{0, fmt::format("see at CODE's lines whether each process builds the same. If so: {}",
                            remedy.text)}};
  return worth_a_word(
      {saved_by_sharing(*cause, summary), std::string(remedy.text) + preloading(summary)});
}

Offers of_received(const Remedy& remedy, const Evidence& evidence) {
  const Share* cause = much_new(remedy.cause, *evidence.summary);
  if (cause == nullptr || is_of_programs(evidence)) return {};
  const std::uint64_t most = most_of_one(*cause, *evidence.summary);
  const double receivers =
      std::round(static_cast<double>(cause->forked_bytes) / static_cast<double>(most));
  const std::uint64_t saved = saved_by_sharing(*cause, *evidence.summary) + most;
  // A sender that pickles also copies, and what it sends is given back when that is unpickled.
  const std::uint64_t pickled = pickling_bytes(*evidence.measurement);
  const std::uint64_t with_copies = saved + pickled;
  return worth_a_word(
      {with_copies,
       fmt::format("{} ({:.0f} MiB to each of {:.0f})", remedy.text,
                   static_cast<double>(cause->forked_bytes) / receivers / kMiB, receivers),
       is_sure(saved - std::min(saved, pickled), with_copies)});
}

Offers of_limit(const Remedy& remedy, const Evidence& evidence) {
  Offers offers;
  for (const ProcessGroup& group : evidence.summary->groups) {
    if (!group.crash || !group.out_of_memory || !offers.empty()) continue;
    const cow::OutOfMemory& why = *group.out_of_memory;
    std::string text(remedy.text);
    if (why.limit == cow::kMachine)
      text = "add memory or swap to the machine, or run fewer processes at once";
    else if (why.limit_bytes)
      text = fmt::format("raise {}, or run fewer processes at once: no other remedy saves a fifth",
                         limit_text(why));
    offers.push_back({.text = std::move(text), .is_urgent = true});
  }
  return offers;
}

Offers of_loaded(const Remedy& remedy, const Evidence& evidence) {
  const Share* cause = much_new(remedy.cause, *evidence.summary);
  if (cause == nullptr) return {};
  return worth_a_word({saved_by_sharing(*cause, *evidence.summary)});
}

}  // namespace cowshed::cowtop
