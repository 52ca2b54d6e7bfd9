#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <string_view>

#include <cowshed/tools/cowtop/analysis/advice.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

enum class Language : std::uint8_t { native, python, old_python, ruby, php, perl, ocaml, r };

// "python3.11", or "libpython3.13.so.1.0".  An unknown version is taken for a new one.
Language version_of_python(std::string_view name) {
  constexpr std::string_view kThree = "python3.";
  constexpr int kFirstWithImmortals = 12;
  const auto at = name.find(kThree);
  int minor = kFirstWithImmortals;
  if (at != name.npos)
    std::from_chars(name.data() + at + kThree.size(), name.data() + name.size(), minor);
  return minor < kFirstWithImmortals ? Language::old_python : Language::python;
}

Language language_of(std::string_view name) {
  struct Prefix {
    std::string_view text;
    Language language;
  };
  constexpr std::array kPrefixes = {
      Prefix{"python", Language::python}, Prefix{"libpython", Language::python},
      Prefix{"ruby", Language::ruby},     Prefix{"libruby", Language::ruby},
      Prefix{"php", Language::php},       Prefix{"libphp", Language::php},
      Prefix{"perl", Language::perl},     Prefix{"libperl", Language::perl},
      Prefix{"libR.so", Language::r}};
  for (const Prefix& prefix : kPrefixes)
    if (name.starts_with(prefix.text))
      return prefix.language == Language::python ? version_of_python(name) : prefix.language;
  if (name.starts_with("caml_")) return Language::ocaml;
  return Language::native;
}

// By the libraries and functions that copied most.
Language language_of(const cow::Measurement& measurement) {
  if (!measurement.sampled) return Language::native;
  for (const cow::CodeSite& site : measurement.sampled->sites) {
    for (const cow::Frame& frame : site.stack) {
      Language language = language_of(cow::base_name(frame.module));
      if (language == Language::native) language = language_of(frame.function);
      if (language == Language::native && frame.is_python) language = Language::python;
      if (language != Language::native) return language;
    }
  }
  return Language::native;
}

std::string for_reference_counts(Language language, bool has_frozen) {
  switch (language) {
    case Language::python:
      return has_frozen ? "call cowshed.freeze() once more, after the last data is loaded"
                        : "call cowshed.freeze() before the fork: then reads write no counts";
    case Language::old_python:
      return "hold the data in an array, mmap or arrow table, or call cowshed.freeze() in Python "
             "3.12 or newer: gc.freeze() does not stop counts";
    case Language::native:
      return "hold read-only data in a frozen arena, by ImmortalPtr instead of shared_ptr";
    default: return "hold the data outside counted objects: a file that is mapped, or a store";
  }
}

std::string for_collector(Language language) {
  switch (language) {
    case Language::python:
    case Language::old_python: return "call gc.collect() and gc.freeze() before the fork";
    case Language::ruby:
      return "call Process.warmup (since Ruby 3.3), or GC.compact, before the fork";
    case Language::ocaml:
      return "collect less in children: Gc.set with a space_overhead of 1000000; Gc.compact before "
             "the fork does not help";
    case Language::r:
      return "allocate less in children, so that they collect less; gc() before the fork does not "
             "help";
    default: return "run a full collection before the fork";
  }
}

// Of multiprocessing's pickling, in a call of put() or in the thread that a Queue sends by.
std::uint64_t pickling_bytes(const cow::Measurement& measurement) {
  std::uint64_t bytes = 0;
  if (!measurement.sampled) return bytes;
  for (const cow::CodeSite& site : measurement.sampled->sites)
    if (std::any_of(site.stack.begin(), site.stack.end(), [](const cow::Frame& frame) {
          return frame.is_python && frame.function.ends_with("ForkingPickler.dumps");
        }))
      bytes += site.estimated_copies * cow::kPageSize;
  return bytes;
}

bool is_of_dlopen(const cow::CodeSite& site) {
  return std::any_of(site.stack.begin(), site.stack.end(), [](const cow::Frame& frame) {
    return frame.function == "_dl_open" || frame.function == "dl_open_worker";
  });
}

// LD_BIND_NOW does nothing for a library that a child loads.
std::string for_relocations(const cow::Measurement& measurement) {
  std::uint64_t of_dlopen = 0;
  std::uint64_t others = 0;
  if (measurement.sampled) {
    for (const cow::CodeSite& site : measurement.sampled->sites) {
      const bool relocates =
          std::any_of(site.stack.begin(), site.stack.end(), [](const cow::Frame& frame) {
            return cow::base_name(frame.module).starts_with("ld-linux");
          });
      if (relocates) (is_of_dlopen(site) ? of_dlopen : others) += site.estimated_copies;
    }
  }
  return of_dlopen > others ? "load the libraries before the fork that children load by dlopen()"
                            : "set LD_BIND_NOW=1: symbols are bound before the fork";
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

// Where most of the copies are of functions without names.
std::string for_missing_names(const cow::Measurement& measurement, std::uint64_t all) {
  if (!measurement.sampled) return "";
  std::map<std::string, std::uint64_t> nameless;
  for (const cow::CodeSite& site : measurement.sampled->sites) {
    if (site.frames.empty() || !site.frames.back().function.empty()) continue;
    nameless[site.frames.back().module] += site.estimated_copies * cow::kPageSize;
  }
  const auto most = std::max_element(nameless.begin(), nameless.end(),
                                     [](auto& a, auto& b) { return a.second < b.second; });
  if (most == nameless.end() || most->first.empty() || most->second * 2 < all) return "";
  const std::string package = package_of(most->first);
  return fmt::format(
      "install the debug symbols of {}{}, to learn why", printable(cow::base_name(most->first)),
      package.empty()
          ? ""
          : ", " + package.substr(0, package.find(':')) + "-dbgsym of Debian's debug archive");
}

constexpr double kLeastShare = 0.2;
constexpr std::uint64_t kLeastBytes = 1 << 20;

}  // namespace

std::string cause_in_words(const std::string& pattern) {
  if (pattern == "reference count") return "reads write to the object's header";
  if (pattern == "garbage collector") return "marking an object writes to it";
  if (pattern == "allocator free list") return "malloc and free write to blocks";
  if (pattern == "cached hash") return "hashing a key stores the hash in it";
  if (pattern == "adaptive interpreter") return "running code counts and rewrites itself";
  if (pattern == "object flags") return "using an object marks its header";
  if (pattern == "own writes") return "the program's own code";
  if (pattern == "lock or flag word") return "it lies beside shared data";
  if (pattern == "bulk copy") return "memcpy over memory that was shared";
  if (pattern == "bulk fill") return "memset over memory that was shared";
  if (pattern == "stack") return "the stack is written by every call";
  if (pattern == "relocation") return "the dynamic linker writes addresses";
  if (pattern == "system call") return "the kernel stores, as for read(2)";
  return "";
}

std::vector<Advice> advise(const cow::Measurement& measurement, const Summary& summary) {
  std::vector<Advice> result;
  if (summary.copied_bytes < kLeastBytes) return result;
  const Language language = language_of(measurement);
  for (const Share& cause : summary.causes) {
    if (cause.of_all < kLeastShare || cause.bytes < kLeastBytes) continue;
    if (cause.name == "reference count")
      result.push_back({for_reference_counts(language, summary.frozen_objects > 0), cause.bytes});
    if (cause.name == "garbage collector") result.push_back({for_collector(language), cause.bytes});
    if (cause.name == "relocation") result.push_back({for_relocations(measurement), cause.bytes});
    if (cause.name == "allocator free list")
      result.push_back(
          {"free nothing in the child that was allocated before the fork", cause.bytes});
  }
  const std::uint64_t pickled = pickling_bytes(measurement);
  if (pickled >= kLeastBytes &&
      static_cast<double>(pickled) >= kLeastShare * static_cast<double>(summary.copied_bytes)) {
    result.push_back(
        {"send less through queues, pools and pipes: pickling reads each object (tools/pickled "
         "lists what is sent)",
         pickled});
  }
  const bool is_unknown = !summary.causes.empty() && summary.causes.front().name == "unknown";
  if (auto text = for_missing_names(measurement, summary.copied_bytes); is_unknown && !text.empty())
    result.push_back({std::move(text), 0});
  const ProcessGroup* top = summary.groups.empty() ? nullptr : &summary.groups.front();
  if (top != nullptr && top->role == cow::Role::root && top->forks > 0 &&
      top->most_copied >= kLeastBytes) {
    // The copies of one child are given back at its end.
    const auto most = std::find_if(summary.parents.begin(), summary.parents.end(),
                                   [&](const auto& each) { return each.parent == top->pid; });
    const std::uint64_t at_once =
        most == summary.parents.end() ? top->copied_bytes.value_or(0) : most->copied_bytes;
    result.push_back(
        {"write less while a child lives: fork when few writes come (a database: on a replica)",
         at_once});
  }
  std::stable_sort(result.begin(), result.end(),
                   [](const Advice& a, const Advice& b) { return a.saves_bytes > b.saves_bytes; });
  return result;
}

}  // namespace cowshed::cowtop
