#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <span>
#include <string_view>

#include <cowshed/cow/cause_names.h>
#include <cowshed/tools/cowtop/analysis/advice.h>
#include <cowshed/tools/cowtop/text/causes.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

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

// The Debian package of a file; empty: it is in none.
std::string package_of(const std::string& file) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/var/lib/dpkg/info", error)) {
    if (entry.path().extension() != ".list") continue;
    std::ifstream list(entry.path());
    for (std::string line; std::getline(list, line);)
      if (line == file || "/usr" + line == file) return entry.path().stem().string();
  }
  return "";
}

// Where most of CODE has no names.
std::string for_missing_names(const cow::Measurement& measurement, const Summary& summary) {
  std::uint64_t all = 0;
  std::uint64_t unnamed = 0;
  for (const Share& site : summary.sites) {
    all += site.bytes;
    if (site.name.starts_with("??")) unnamed += site.bytes;
  }
  if (!measurement.sampled || unnamed * 2 <= all) return "";
  std::map<std::string, std::uint64_t> nameless;
  for (const cow::CodeSite& site : measurement.sampled->sites) {
    const bool is_unnamed = !site.frames.empty() && site.frames.back().function.empty();
    if (is_unnamed && !site.frames.back().module.empty())
      nameless[site.frames.back().module] += site.estimated_copies * cow::kPageSize;
  }
  const auto most = std::ranges::max_element(nameless, {}, [](auto& each) { return each.second; });
  if (most == nameless.end()) return "";
  const std::string package = package_of(most->first);
  return fmt::format("install the debug symbols of {}{}, to see its functions in CODE",
                     printable(cow::base_name(most->first)),
                     package.empty() ? ""
                                     : ", " + package.substr(0, package.find(':')) +
                                           "-dbgsym of Debian's debug archive");
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

std::string remedy(const std::string& cause, Language language, const Summary& summary) {
  if (cause == cow::kUnknown) return "";     // see for_missing_names()
  if (cause == cow::kRelocation) return "";  // see against_relocations()
  const std::string_view text = remedy_for(cause, language);
  if (summary.is_frozen_before_forks && text.find("freeze() before the fork") != text.npos) {
    if (summary.is_frozen_in_part)
      return "print the result of cowshed.freeze(): register_children() reaches what it counts as "
             "left";
    return "call cowshed.freeze() once more, after the last data is loaded";
  }
  return std::string(text);
}

bool is_of_own_code(std::string_view cause) {
  const Cause* known = find_cause(cause);
  return known != nullptr && known->code == Code::own;
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

std::vector<Advice> against_causes(const cow::Measurement& measurement, const Summary& summary,
                                   Language language) {
  std::vector<Advice> result;
  const std::uint64_t all =
      summary.copied_bytes + (summary.has_new_memory() ? summary.new_bytes : 0);
  const std::uint64_t by_parent = language == Language::native ? copied_by_a_parent(summary) : 0;
  for (const Share& cause : summary.causes) {
    // Whoever runs a database does not change its code.
    const bool can_change = by_parent == 0 || !is_of_own_code(cause.name);
    if (!is_much(cause.bytes, all) || !can_change) continue;
    std::string text = remedy(cause.name, cause.language, summary);
    const auto same = std::ranges::find(result, text, &Advice::text);
    if (same != result.end()) same->saves_bytes += cause.bytes;
    else if (!text.empty()) result.push_back({std::move(text), cause.bytes});
  }
  const std::uint64_t pickled = pickling_bytes(measurement);
  if (is_much(pickled, all)) {
    result.push_back(
        {"send less through queues, pools and pipes: pickling reads each object (tools/pickled "
         "lists what is sent)",
         pickled});
  }
  if (by_parent > 0) {
    result.push_back(
        {"write less while a child lives: fork when few writes come (a database: on a replica)",
         by_parent});
  }
  return result;
}

// COPIED has only few of these: most are first writes to files.
std::vector<Advice> against_relocations(const cow::Measurement& measurement,
                                        const Summary& summary) {
  const std::uint64_t bytes = summary.relocated_bytes;
  if (!is_much(bytes, summary.copied_bytes + summary.file_bytes) ||
      bytes < summary.sharers * kLeastBytes) {
    return {};
  }
  const std::vector<Remedy>& remedies = find_cause(cow::kRelocation)->remedies;
  const Remedy& remedy = relocates_for_dlopen(measurement) ? remedies.front() : remedies.back();
  return {{std::string(remedy.text), bytes}};
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
  const std::uint64_t parent = std::min<std::uint64_t>(summary.most_at_once, 1);
  return std::max<std::uint64_t>(summary.most_at_once - parent, 1);
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

constexpr std::string_view kImportOf = "import of ";

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
Advice against_imports(std::span<const Share* const> imports, const Summary& summary) {
  Advice advice;
  std::vector<std::string> modules;
  std::uint64_t bytes = 0;
  std::uint64_t named = 0;
  for (const Share* each : imports) {
    advice.saves_bytes += saved_by_sharing(*each, summary);
    bytes += each->bytes;
    if (!each->name.starts_with(kImportOf)) continue;
    modules.push_back(each->name.substr(kImportOf.size()));
    named += each->bytes;
  }
  advice.text = named * 2 < bytes ? "import before the fork what is imported now at CODE's lines"
                                  : fmt::format("import {} before the fork{}",
                                                module_names(modules), preloading(summary));
  return advice;
}

// A line for each of two, or one for all where the others are much, too.
std::vector<Advice> against_imports(const Summary& summary) {
  constexpr std::size_t kMostLines = 2;
  std::vector<const Share*> imports;
  std::uint64_t others = 0;
  std::size_t alone = 0;
  for (const Share& cause : summary.new_causes) {
    if (!cause.name.starts_with(cow::kImport)) continue;
    imports.push_back(&cause);
    if (alone < kMostLines && is_much(cause.bytes, summary.new_bytes)) ++alone;
    else others += cause.bytes;
  }
  if (is_much(others, summary.new_bytes)) return {against_imports(imports, summary)};
  std::vector<Advice> result;
  for (std::size_t i = 0; i < alone; ++i)
    result.push_back(against_imports(std::span(imports).subspan(i, 1), summary));
  return result;
}

// What one process imports, reads or builds before the fork, the others share.
std::vector<Advice> against_new_memory(const Summary& summary) {
  if (!summary.has_new_memory() || summary.holders == 0) return {};
  std::vector<Advice> result = against_imports(summary);
  for (const Share& cause : summary.new_causes) {
    if (!is_much(cause.bytes, summary.new_bytes)) continue;
    const std::uint64_t saved = saved_by_sharing(cause, summary);
    if (cause.name == cow::kOwnData && !is_php_fpm(summary))
      result.push_back(
          {"build before the fork what each process builds alike at CODE's lines: "
           "load the application in the parent, fill its caches" +
               preloading(summary),
           saved});
    else if (cause.name == cow::kReceived) {
      const std::uint64_t most = most_of_one(cause, summary);
      const double receivers =
          std::round(static_cast<double>(cause.bytes) / static_cast<double>(most));
      result.push_back({fmt::format("send references: load what is sent before the fork, or "
                                    "publish() it ({:.0f} MiB to each of {:.0f})",
                                    static_cast<double>(cause.bytes) / receivers / kMiB, receivers),
                        saved + most});
    } else if (cause.name == cow::kLoaded)
      result.push_back({"read before the fork, or map, what CODE's lines read", saved});
  }
  std::erase_if(result, [](const Advice& each) { return each.saves_bytes < kLeastBytes; });
  return result;
}

// A fork copies the page tables of ordinary memory.  Those of a settled heap it does not.
std::vector<Advice> against_page_tables(const cow::Measurement& measurement, const Summary& summary,
                                        Language language) {
  constexpr std::uint64_t kOfSmallProcesses = 256 << 10;
  constexpr double kMsPerMiB = 5;  // docs/how-to/settle.md has measured it
  constexpr double kLongFork = 10;
  const bool is_python = cow::is_python(language);
  if (!is_python && language != Language::native) return {};
  std::uint64_t most = 0;
  for (const cow::ProcessCopies& process : measurement.processes) {
    const std::uint64_t forks = std::max<std::uint64_t>(process.processes, 1);
    most = std::max(most, process.page_tables_at_fork_bytes.value_or(0) / forks);
  }
  if (most <= kOfSmallProcesses) return {};
  const std::uint64_t saved = (most - kOfSmallProcesses) * at_once(summary);
  const double fork_ms = static_cast<double>(most) / kMiB * kMsPerMiB;
  constexpr std::uint64_t kHundredth = 100;
  const bool is_large = saved >= 4 * kLeastBytes && saved * kHundredth > summary.most_peak_bytes;
  if (fork_ms < kLongFork && !is_large) return {};
  return {{fmt::format("settle the heap before the fork ({}): each fork copies {} MiB of page "
                       "tables, in some {:.0f} ms",
                       is_python ? "cowshed run --settle" : "cowshed::settle()", mebibytes(most),
                       fork_ms),
           saved}};
}

}  // namespace

bool is_much(std::uint64_t bytes, std::uint64_t all) {
  constexpr double kLeastShare = 0.2;
  return bytes >= kLeastBytes &&
         static_cast<double>(bytes) >= kLeastShare * static_cast<double>(all);
}

std::vector<Advice> advise(const cow::Measurement& measurement, const Summary& summary) {
  const Language language = summary.language;
  const std::uint64_t for_programs = copied_for_programs(summary);
  std::vector<Advice> result = against_relocations(measurement, summary);
  if (!summary.is_little && (summary.sharers > 0 || summary.ran == 0)) {
    const std::vector<Advice> more = against_causes(measurement, summary, language);
    result.insert(result.end(), more.begin(), more.end());
  }
  if (is_much(for_programs, summary.copied_bytes + summary.before_exec_bytes))
    result.push_back(
        {"start programs by posix_spawn() or vfork(), which copy nothing", for_programs});
  const std::vector<Advice> of_new = against_new_memory(summary);
  result.insert(result.end(), of_new.begin(), of_new.end());
  const std::vector<Advice> of_tables = against_page_tables(measurement, summary, language);
  result.insert(result.end(), of_tables.begin(), of_tables.end());
  std::ranges::stable_sort(result, std::greater<>(), &Advice::saves_bytes);
  // The report has two.
  if (std::string text = for_missing_names(measurement, summary);
      !summary.is_little && !text.empty())
    result.insert(result.begin() + (result.empty() ? 0 : 1), {std::move(text), 0});
  if (is_much(summary.exit_bytes, summary.copied_bytes + summary.exit_bytes) &&
      summary.exit_bytes >= summary.sharers * kLeastBytes)
    result.push_back({std::string(remedy_for(cow::kProgramExit, language)), 0});
  return result;
}

}  // namespace cowshed::cowtop
