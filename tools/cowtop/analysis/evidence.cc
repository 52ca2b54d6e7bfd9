#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <map>
#include <span>

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

// What a parent copies while its children live, if that is most; for one child, which gives it back
// at its end.
std::uint64_t copied_by_a_parent(const Summary& summary) {
  if (summary.groups.empty()) return 0;
  const ProcessGroup& top = summary.groups.front();
  if (!top.is_parent || top.forks == 0 || top.most_copied < kLeastBytes) return 0;
  const auto most = std::ranges::find(summary.parents, top.pid, &ParentCopies::parent);
  return most == summary.parents.end() ? top.copied_bytes.value_or(0) : most->copied_bytes;
}

// Of multiprocessing's pickling, in a call of put() or in the thread that a Queue sends by.
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

bool is_shell(std::string_view name) {
  constexpr std::array<std::string_view, 6> kShells = {"sh", "bash", "dash", "zsh", "ksh", "make"};
  return std::ranges::find(kShells, name) != kShells.end();
}

// By children before they executed programs, and, if there are no others, by their parent.
std::uint64_t copied_for_programs(const Summary& summary) {
  const auto root = std::ranges::find(summary.groups, cow::Role::root, &ProcessGroup::role);
  if (root == summary.groups.end() || is_shell(root->comm) || summary.ran == 0) return 0;
  const std::uint64_t by_root = summary.sharers == 0 ? root->copied_bytes.value_or(0) : 0;
  return (summary.copy_before_exec() ? summary.before_exec_bytes : 0) + by_root;
}

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
      if (group.most_new >= kLeastBytes && group.comm.starts_with(server.comm))
        return fmt::format(" ({})", server.option);
  return "";
}

// Its master runs no script, so that it cannot build anything for its workers.
bool is_php_fpm(const Summary& summary) {
  return std::ranges::any_of(summary.groups, [](const ProcessGroup& group) {
    return group.most_new >= kLeastBytes && group.comm.starts_with("php-fpm");
  });
}

// The children that lived at the same time.
std::uint64_t at_once(const Summary& summary) {
  const std::uint64_t all = std::min(summary.most_at_once, summary.processes);
  return std::max<std::uint64_t>(all, 2) - 1;  // without the parent
}

// What the child with the most of a cause's new memory has of it.
std::uint64_t most_of_one(const Share& cause, const Summary& summary) {
  return cause.most_bytes > 0 ? cause.most_bytes : cause.bytes / summary.holders;
}

// What the children that have a cause's memory save if they share it: one has it still.
std::uint64_t saved_by_sharing(const Share& cause, const Summary& summary) {
  const std::uint64_t most = most_of_one(cause, summary);
  const std::uint64_t children = std::min(at_once(summary), summary.processes);
  return std::min(cause.bytes - most, most * (children - 1));
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

// The modules have names once their code runs.
Offer against_imports(std::span<const Share* const> imports, const Summary& summary) {
  Offer offer;
  std::vector<std::string> modules;
  std::uint64_t bytes = 0;
  std::uint64_t named = 0;
  for (const Share* each : imports) {
    offer.saves_bytes += saved_by_sharing(*each, summary);
    bytes += each->bytes;
    if (each->new_cause.module.empty()) continue;
    modules.push_back(each->new_cause.module);
    named += each->bytes;
  }
  if (is_part(named, bytes, kHalfOfAll))
    offer.text =
        fmt::format("import {} before the fork{}", module_names(modules), preloading(summary));
  return offer;
}

// As `offer`, if it saves enough.
Offers worth_a_word(Offer offer) {
  return offer.saves_bytes < kLeastBytes ? Offers() : Offers{std::move(offer)};
}

// Much of the new memory that children hold has this cause; null: it has not.
const Share* much_new(std::string_view cause, const Summary& summary) {
  if (!summary.has_new_memory() || summary.holders == 0) return nullptr;
  const auto found = std::ranges::find(summary.new_causes, cause, &Share::name);
  const bool is_found = found != summary.new_causes.end();
  return is_found && is_much(found->bytes, summary.new_bytes) ? &*found : nullptr;
}

}  // namespace

const Share* share_of(std::string_view cause, const Evidence& evidence) {
  const auto found = std::ranges::find(evidence.summary->causes, cause, &Share::name);
  return found == evidence.summary->causes.end() ? nullptr : &*found;
}

Offers of_cause(const Remedy& remedy, const Evidence& evidence) {
  const Share* share = share_of(remedy.cause, evidence);
  const bool is_worth = share != nullptr && have_copied(*evidence.summary) &&
                        is_much(share->bytes, all_of(*evidence.summary));
  return is_worth ? Offers{{share->bytes}} : Offers();
}

Offers of_own_cause(const Remedy& remedy, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const bool is_databases =
      summary.language == cow::Language::native && copied_by_a_parent(summary) > 0;
  return is_databases ? Offers() : of_cause(remedy, evidence);
}

Offers of_python_cause(const Remedy& remedy, const Evidence& evidence) {
  Offers offers = of_cause(remedy, evidence);
  if (!offers.empty() && evidence.summary->is_frozen_before_forks)
    offers.front().text =
        evidence.summary->is_frozen_in_part
            ? "print the result of cowshed.freeze(): register_children() reaches what it counts as "
              "left"
            : "call cowshed.freeze() once more, after the last data is loaded";
  return offers;
}

Offers of_exits(const Remedy& /*remedy*/, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const bool is_worth = is_much(summary.exit_bytes, summary.copied_bytes + summary.exit_bytes) &&
                        summary.exit_bytes >= summary.sharers * kLeastBytes;
  return is_worth ? Offers(1) : Offers();
}

// COPIED has only few of these: most are first writes to files.
Offers of_dlopen(const Remedy& /*remedy*/, const Evidence& evidence) {
  return relocates_for_dlopen(*evidence.measurement) ? of_relocations(*evidence.summary) : Offers();
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
  const Summary& summary = *evidence.summary;
  const std::uint64_t bytes = pickling_bytes(*evidence.measurement);
  return have_copied(summary) && is_much(bytes, all_of(summary)) ? Offers{{bytes}} : Offers();
}

Offers of_parent(const Remedy& /*remedy*/, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const std::uint64_t bytes =
      summary.language == cow::Language::native ? copied_by_a_parent(summary) : 0;
  return have_copied(summary) && bytes > 0 ? Offers{{bytes}} : Offers();
}

Offers of_programs(const Remedy& /*remedy*/, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const std::uint64_t bytes = copied_for_programs(summary);
  return is_much(bytes, summary.copied_bytes + summary.before_exec_bytes) ? Offers{{bytes}}
                                                                          : Offers();
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
    if (alone < kMostLines && is_much(cause.bytes, summary.new_bytes)) ++alone;
    else others += cause.bytes;
  }
  if (is_much(others, summary.new_bytes)) return worth_a_word(against_imports(imports, summary));
  Offers result;
  for (std::size_t i = 0; i < alone; ++i)
    for (Offer& each : worth_a_word(against_imports(std::span(imports).subspan(i, 1), summary)))
      result.push_back(std::move(each));
  return result;
}

Offers of_own_data(const Remedy& remedy, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const Share* cause = much_new(remedy.cause, summary);
  if (cause == nullptr || is_php_fpm(summary)) return {};
  return worth_a_word(
      {saved_by_sharing(*cause, summary), std::string(remedy.text) + preloading(summary)});
}

Offers of_received(const Remedy& remedy, const Evidence& evidence) {
  const Share* cause = much_new(remedy.cause, *evidence.summary);
  if (cause == nullptr) return {};
  const std::uint64_t most = most_of_one(*cause, *evidence.summary);
  const double receivers =
      std::round(static_cast<double>(cause->bytes) / static_cast<double>(most));
  return worth_a_word(
      {saved_by_sharing(*cause, *evidence.summary) + most,
       fmt::format("{} ({:.0f} MiB to each of {:.0f})", remedy.text,
                   static_cast<double>(cause->bytes) / receivers / kMiB, receivers)});
}

Offers of_loaded(const Remedy& remedy, const Evidence& evidence) {
  const Share* cause = much_new(remedy.cause, *evidence.summary);
  if (cause == nullptr) return {};
  return worth_a_word({saved_by_sharing(*cause, *evidence.summary)});
}

Offers of_page_tables(const Remedy& remedy, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  std::uint64_t most = 0;
  for (const cow::ProcessCopies& process : evidence.measurement->processes) {
    const std::uint64_t forks = std::max<std::uint64_t>(process.processes, 1);
    most = std::max(most, process.page_tables_at_fork_bytes.value_or(0) / forks);
  }
  if (most <= kPageTables) return {};
  const std::uint64_t saved = (most - kPageTables) * at_once(summary);
  const double fork_ms = static_cast<double>(most) / kMiB * kForkMsOfMiB;
  const bool is_large =
      saved >= kLeastTables && is_part(saved, summary.most_peak_bytes, kLittleOfAll);
  if (fork_ms < kLongForkMs && !is_large) return {};
  return {{saved, fmt::format("{}: each fork copies {} MiB of page tables, in some {:.0f} ms",
                              remedy.text, mebibytes(most), fork_ms)}};
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
