#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cstdlib>
#include <fmt/format.h>
#include <functional>
#include <string_view>

#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/causes/copy_causes.h>
#include <cowshed/cow/language.h>

namespace cowshed::cow {
namespace {

// At least 9 of 10 samples of a site must agree.
constexpr std::uint64_t kMost = 9;
constexpr std::uint64_t kTenths = 10;
constexpr std::uint64_t kBulkBytes = 1024;
constexpr std::uint64_t kLeastNearPageBegin = 4;  // one of 8 samples is there by chance
constexpr std::size_t kLeastReleaseSites = 3;
// Functions in which to look for a name: helpers may lie between the named function and the store.
constexpr std::size_t kInnermost = 3;
// And what a collection may call before it writes.
constexpr std::size_t kInCollection = 8;

bool most(std::uint64_t part, std::uint64_t all) { return part * kTenths >= all * kMost; }

using Words = std::initializer_list<std::string_view>;

bool is_any_of(std::string_view text, Words names) {
  return std::ranges::find(names, text) != names.end();
}

bool starts_with_any(std::string_view text, Words prefixes) {
  return std::ranges::any_of(prefixes,
                             [&](std::string_view prefix) { return text.starts_with(prefix); });
}

bool contains_any(std::string_view text, Words parts) {
  return std::ranges::any_of(
      parts, [&](std::string_view part) { return text.find(part) != std::string_view::npos; });
}

std::string lower_case(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

// Whether the name has the word gc, as in _PyObject_GC_Del, PyGC_Collect and gc_mark, but not in
// getgcd.
bool has_gc(std::string_view name) {
  for (std::size_t at = 0; at + 2 <= name.size(); ++at) {
    const std::string_view here = name.substr(at, 2);
    if (here != "gc" && here != "GC") continue;
    const char before = at > 0 ? name[at - 1] : '_';
    const char after = at + 2 < name.size() ? name[at + 2] : '_';
    const bool begins = !std::isalpha(static_cast<unsigned char>(before)) ||
                        (here == "GC" && std::islower(static_cast<unsigned char>(before)));
    if (begins && !std::isalpha(static_cast<unsigned char>(after))) return true;
  }
  return false;
}

// In other programs than interpreters, gc alone proves nothing: a genome has a GC content.
bool is_collector(std::string_view function) {
  const std::string name = lower_case(function);
  return contains_any(name, {"garbage_collect", "mark_and_sweep"}) ||
         starts_with_any(function, {"GC_malloc", "GC_mark", "GC_push_", "GC_reclaim_", "GC_clear_",
                                    "GC_set_mark", "GC_gcollect", "GC_try_to_collect",
                                    "GC_stopped_mark", "GC_finish_collection", "GC_finalize",
                                    "PyObject_GC_", "_PyObject_GC_", "PyGC_", "_PyGC_"}) ||
         (has_gc(function) && contains_any(name, {"mark", "sweep", "collect", "visit", "compact"}));
}

// The functions by which OCaml, Ruby and R begin a collection, or a part of one.
bool is_collection(std::string_view function) {
  return starts_with_any(
      function, {"caml_major_collection", "caml_minor_collection", "caml_empty_minor_heap",
                 "caml_finish_major_cycle", "caml_compact_heap", "caml_gc_", "gc_marks", "gc_sweep",
                 "gc_start", "rb_gc_start", "garbage_collect", "R_gc", "RunGenCollect"});
}

// R and Ruby write to a new object, which is a recycled one.
bool is_maker(std::string_view function) {
  return is_any_of(function, {"Rf_allocVector3", "Rf_cons", "R_mkEVPROMISE", "Rf_NewEnvironment",
                              "rb_newobj", "rb_newobj_of", "rb_wb_protected_newobj_of",
                              "rb_wb_unprotected_newobj_of", "newobj_slowpath"}) ||
         starts_with_any(function, {"rb_transient_heap_", "transient_heap_"});
}

// Of jemalloc, mimalloc or tcmalloc.  The prefix alone proves nothing.
bool is_of_allocator_library(std::string_view function) {
  for (const std::string_view prefix : {"je_", "_mi_", "mi_", "tc_"})
    if (function.starts_with(prefix))
      return starts_with_any(
          function.substr(prefix.size()),
          {"malloc",    "calloc", "realloc", "zalloc", "alloc", "free", "new",   "delete",
           "posix_mem", "memal",  "arena",   "tcache", "cache", "base", "edata", "extent",
           "large",     "emap",   "bin",     "heap",   "theap", "page", "segm",  "block"});
  return false;
}

bool is_allocator(std::string_view function) {
  return is_maker(function) ||
         is_any_of(function,
                   {"malloc",          "calloc",        "realloc",          "free",
                    "cfree",           "memalign",      "posix_memalign",   "aligned_alloc",
                    "PyObject_Malloc", "PyObject_Free", "PyObject_Realloc", "PyMem_Malloc",
                    "PyMem_Free",      "_efree",        "_emalloc",         "palloc",
                    "ruby_xmalloc",    "ruby_xcalloc",  "ruby_xrealloc",    "ruby_xfree"}) ||
         starts_with_any(function, {"__libc_malloc", "__libc_calloc", "__libc_realloc",
                                    "__libc_free", "malloc_consolidate", "unlink_chunk",
                                    "tcache_put", "tcache_get", "sysmalloc", "systrim"}) ||
         starts_with_any(
             function, {"_int_malloc", "_int_free", "_int_realloc", "_int_memalign", "operator new",
                        "operator delete", "_Znwm", "_Znam", "_ZdlPv", "_ZdaPv", "AllocSet",
                        "zend_mm_", "_PyObject_Malloc", "_PyObject_Free", "pymalloc_"}) ||
         is_of_allocator_library(function);
}

bool is_lock(std::string_view function) {
  return starts_with_any(function, {"pthread_mutex_", "___pthread_mutex_", "__pthread_mutex_",
                                    "pthread_rwlock_", "___pthread_rwlock_", "__pthread_rwlock_",
                                    "pthread_spin_", "__pthread_spin_", "__lll_lock", "lll_lock"});
}

// Whether `is` holds for one of the innermost functions that have a name.
bool any_inner(const StoreSite& site, bool (*is)(std::string_view), std::size_t most_functions) {
  for (const std::string& function : site.functions) {
    if (function.empty()) continue;
    if (is(function)) return true;
    if (--most_functions == 0) return false;
  }
  return false;
}

bool innermost(const StoreSite& site, bool (*is)(std::string_view)) {
  return any_inner(site, is, 1);
}

bool is_word(const StoreInstruction& store) { return store.width == 4 || store.width == 8; }

bool is_stack(const StoreSite& site) {
  return site.store.kind == StoreKind::push || site.store.kind == StoreKind::call ||
         most(site.near_stack_pointer, site.samples);
}

bool is_relocation(const StoreSite& site) {
  const bool stores = site.store.kind == StoreKind::store || site.store.kind == StoreKind::add;
  return is_dynamic_linker(site.module) && stores && site.store.width == 8 &&
         most(site.in_file, site.samples);
}

bool is_copy(std::string_view function) {
  return contains_any(function, {"memcpy", "memmove", "mempcpy"});
}
bool is_fill(std::string_view function) { return contains_any(function, {"memset", "bzero"}); }

bool is_bulk(const StoreSite& site, StoreKind kind, bool (*is_named)(std::string_view)) {
  const StoreInstruction& store = site.store;
  if (store.remaining) {
    return store.kind == kind &&
           (*store.remaining >= kBulkBytes || most(site.at_page_begin, site.samples));
  }
  // The C library stores series of vectors only to copy and to fill.
  const bool is_vector = store.kind == StoreKind::vector || store.kind == StoreKind::fill ||
                         store.kind == StoreKind::copy;
  if (is_vector &&
      (innermost(site, is_named) || (store.kind == kind && is_c_library(site.module)))) {
    return store.streams || most(site.at_page_begin, site.samples) ||
           (kind == StoreKind::copy && most(site.at_page_end, site.samples)) ||
           (site.samples >= kLeastNearPageBegin && most(site.near_page_begin, site.samples));
  }
  return kind == StoreKind::fill && store.kind == kind && most(site.at_page_begin, site.samples);
}

bool is_named_collector(const StoreSite& site) {
  if (any_inner(site, is_collector, kInnermost)) return true;
  if (any_inner(site, is_collection, kInCollection)) return true;
  return site.interpreter != Language::native && any_inner(site, has_gc, kInnermost);
}

// Perl has no collector, Python's is told by the objects, and R's by its names.
bool marks_lists(Language interpreter) {
  return interpreter == Language::ruby || interpreter == Language::php ||
         interpreter == Language::ocaml || interpreter == Language::other;
}

bool is_garbage_collector(const StoreSite& site) {
  return is_named_collector(site) ||
         (marks_lists(site.interpreter) && site.store.walks_list && site.store.width == 8);
}

bool is_free_list(const StoreSite& site) {
  return innermost(site, is_allocator) && !site.store.locked &&
         (is_word(site.store) || site.store.kind == StoreKind::vector);
}

std::optional<CounterField> counted_field(const StoreSite& site) {
  const StoreInstruction& store = site.store;
  if (store.kind != StoreKind::add || !is_word(store) || store.advances || !store.displacement ||
      std::abs(store.amount.value_or(0)) != 1 || !most(site.aligned, site.samples)) {
    return std::nullopt;
  }
  return CounterField{*store.displacement, store.width};
}

// Of the control block of std::shared_ptr.
constexpr CounterField kOwners{8, 4};
constexpr CounterField kObservers{12, 4};

bool is_shared_ptr(std::string_view function) {
  return contains_any(function, {"_Sp_counted_base", "std::__shared_count", "__shared_weak_count"});
}

// Whether the function adds to one word, as the counts of std::shared_ptr do.
bool is_counting_helper(std::string_view function) {
  return starts_with_any(function, {"__gnu_cxx::__exchange_and_add", "__gnu_cxx::__atomic_add"});
}

// Not the constructor, which only initialises the count.
bool changes_shared_ptr_count(std::string_view function) {
  return is_shared_ptr(function) &&
         contains_any(function,
                      {"::_M_release", "::_M_add_ref", "::_M_weak_release", "::_M_weak_add_ref"});
}

// With one thread, libstdc++ stores the new count.  weak_ptr::lock() exchanges it.  The last owner
// sets both counts to 0.
bool is_shared_ptr_count(const StoreSite& site) {
  const StoreInstruction& store = site.store;
  if (!is_word(store)) return false;
  if (innermost(site, is_counting_helper)) return any_inner(site, is_shared_ptr, kInnermost);
  if (store.kind == StoreKind::add)
    return std::abs(store.amount.value_or(0)) == 1 && innermost(site, is_shared_ptr);
  return (store.kind == StoreKind::exchange || store.displacement == kOwners.displacement ||
          store.displacement == kObservers.displacement) &&
         innermost(site, changes_shared_ptr_count);
}

// Since CPython 3.12, immortal objects are not counted: the code loads, tests and stores the count.
bool is_python_count(const StoreSite& site) {
  return site.store.kind == StoreKind::store && is_word(site.store) && !site.functions.empty() &&
         is_any_of(site.functions.front(), {"Py_INCREF", "Py_XINCREF", "Py_DECREF", "Py_XDECREF",
                                            "_Py_NewRef", "_Py_XNewRef"});
}

// Perl shares the keys of hashes, and keys() and each() count one more user of each.
bool is_perl_key_count(const StoreSite& site) {
  return site.store.kind == StoreKind::add && is_word(site.store) && !site.functions.empty() &&
         is_any_of(site.functions.front(), {"Perl_newSVhek", "Perl_share_hek", "S_share_hek_flags",
                                            "Perl_unshare_hek", "S_unshare_hek_or_pvn"});
}

// Also where the counts are stored, or few.
bool is_control_block_count(const StoreSite& site, const ReleaseSites& release_sites) {
  return most(site.control_blocks, site.samples) && release_sites(site.module, kOwners) > 0;
}

// An unlocked counter at the place of std::shared_ptr's counts, in a binary that has those, but not
// in what looks like a control block.
bool is_beside_shared_ptrs(const StoreSite& site, CounterField field,
                           const ReleaseSites& release_sites) {
  constexpr std::uint64_t kTypes = 4;  // of blocks, at one place
  const bool is_there = field == kOwners || field == kObservers;
  return is_there && !site.store.locked && release_sites(site.module, kOwners) > 0 &&
         release_sites(site.module, kObservers) > 0 &&
         site.like_the_last * kTypes + 1 < site.samples;
}

// Whether the object shows a count.
bool is_count_of_object(const StoreSite& site, const ReleaseSites& release_sites) {
  return site.object_cause == kReferenceCount || is_control_block_count(site, release_sites);
}

bool is_named_count(const StoreSite& site) {
  return is_shared_ptr_count(site) || is_python_count(site) || is_perl_key_count(site);
}

bool is_lock_or_flag(const StoreSite& site) {
  const StoreInstruction& store = site.store;
  // An exchanged word of 8 bytes may be anything, such as a sum or a pointer.
  return (store.kind == StoreKind::exchange && store.width <= 4) ||
         (store.kind == StoreKind::modify && (store.locked || store.changes_bit)) ||
         innermost(site, is_lock);
}

// What the C library stores for the program, in blocks that are not large.
bool copies_or_fills(const StoreSite& site) {
  const StoreKind kind = site.store.kind;
  return kind == StoreKind::copy || kind == StoreKind::fill || innermost(site, is_copy) ||
         innermost(site, is_fill);
}

// What is left: of the program's own code, or unknown.
std::string_view rest_of(const StoreSite& site) {
  if (site.store.kind == StoreKind::unknown || site.is_generated || site.module.empty() ||
      is_dynamic_linker(site.module)) {
    return kUnknown;
  }
  // Without a name, code of Ruby may be the collector's or the allocator's, which it never exports.
  if (site.interpreter == Language::ruby &&
      (site.functions.empty() || site.functions.front().empty()))
    return kUnknown;
  const bool is_own =
      is_c_library(site.module) ? copies_or_fills(site) : site.interpreter == Language::native;
  return is_own || most(site.programs_data, site.samples) ? kOwnWrites : kUnknown;
}

std::string_view name_of(const StoreSite& site, const ReleaseSites& release_sites) {
  if (site.system_call) return kSystemCall;
  if (is_stack(site)) return kStack;
  if (!site.object_cause.empty())
    return is_named_collector(site) ? kGarbageCollector : site.object_cause;
  if (is_control_block_count(site, release_sites)) return kReferenceCount;
  if (site.store.kind == StoreKind::unknown) return kUnknown;
  if (is_relocation(site)) return kRelocation;
  if (is_bulk(site, StoreKind::copy, is_copy)) return kBulkCopy;
  if (is_bulk(site, StoreKind::fill, is_fill)) return kBulkFill;
  if (is_garbage_collector(site)) return kGarbageCollector;
  if (is_free_list(site)) return kFreeList;
  if (is_named_count(site)) return kReferenceCount;
  if (const auto field = counted_field(site);
      field && !is_beside_shared_ptrs(site, *field, release_sites) &&
      (site.store.releases || release_sites(site.module, *field) >= kLeastReleaseSites)) {
    return kReferenceCount;
  }
  if (is_lock_or_flag(site)) return kLockOrFlag;
  return rest_of(site);
}

std::string description(const StoreSite& site) {
  if (site.system_call)
    return site.system_call->empty() ? "the kernel, outside system calls" : *site.system_call;
  std::string text = site.store.text.empty() ? "an instruction that was not read" : site.store.text;
  if (!site.functions.empty() && !site.functions.front().empty())
    text += " in " + site.functions.front();
  if (!site.module.empty()) text += fmt::format(" ({})", base_name(site.module));
  return text;
}

// Half of all pointers are aligned by chance, so four are with a probability of 1 in 16.
constexpr std::uint64_t kLeastReferenceCounts = 4;

// A counter that only goes down may be a stock: the first write of a reference count is a +1.
// Locked counters are no stock, because they are counted by several threads.
bool may_be_stock(const std::vector<const StoreSite*>& sites) {
  return std::ranges::none_of(
      sites, [](const StoreSite* site) { return site->store.amount == 1 || site->store.locked; });
}

SampleSum samples_of(const StoreSite& site, std::string_view cause) {
  if (cause == kProgramExit) return site.at_exit;
  SampleSum others{site.samples, site.copies};
  return others -= site.at_exit;
}

struct Group {
  SampleSum sum;
  std::vector<const StoreSite*> sites;
};

// Whether these sites together may be something else than reference counts.
bool is_weak(const Group& group, const ReleaseSites& release_sites) {
  const bool any_certain = std::ranges::any_of(group.sites, [&](const StoreSite* site) {
    return is_named_count(*site) || is_count_of_object(*site, release_sites);
  });
  return !any_certain && (group.sum.samples < kLeastReferenceCounts || may_be_stock(group.sites));
}

std::string evidence_of_counts(const Group& group, const ReleaseSites& release_sites) {
  std::uint64_t up = 0;
  std::uint64_t down = 0;
  std::uint64_t by_object = 0;
  for (const StoreSite* site : group.sites) {
    const std::uint64_t samples = samples_of(*site, kReferenceCount).samples;
    if (site->store.amount == 1) up += samples;
    else if (site->store.amount == -1) down += samples;
    else if (is_count_of_object(*site, release_sites)) by_object += samples;
  }
  std::string text = fmt::format("; +1 in {}, -1 in {}", up, down);
  if (by_object > 0) text += fmt::format(", by the object in {}", by_object);
  if (const std::uint64_t by_name = group.sum.samples - up - down - by_object; by_name > 0)
    text += fmt::format(", by the function's name in {}", by_name);
  const StoreSite& top = *group.sites.front();
  if (!is_named_count(top) && !is_count_of_object(top, release_sites)) {
    text += fmt::format(", at 16-byte aligned objects; {} places of {} release",
                        release_sites(top.module, *counted_field(top)), base_name(top.module));
  }
  return text;
}

std::string evidence(std::string_view name, Group& group, std::uint64_t all,
                     const ReleaseSites& release_sites) {
  std::ranges::stable_sort(group.sites, std::greater<>(),
                           [&](const auto* site) { return samples_of(*site, name).copies; });
  const StoreSite& top = *group.sites.front();
  std::string text = description(top);
  if (group.sites.size() > 1) text += fmt::format(" and {} more", group.sites.size() - 1);
  text += fmt::format(": {} of {} samples", group.sum.samples, all);
  if (name == kReferenceCount) text += evidence_of_counts(group, release_sites);
  return text;
}

// The library that makes most of a process's own writes.
std::string library_of(const Group& group) {
  std::map<std::string_view, std::uint64_t> copies;
  for (const StoreSite* site : group.sites)
    copies[site->module] += samples_of(*site, kOwnWrites).copies;
  for (const auto& [module, part] : copies)
    if (is_working_library(module) && most(part, group.sum.copies))
      return std::string(base_name(module));
  return {};
}

}  // namespace

StoreCounts& StoreCounts::operator+=(const StoreCounts& more) {
  using Numbers = std::array<std::uint64_t, sizeof(StoreCounts) / sizeof(std::uint64_t)>;
  auto sum = std::bit_cast<Numbers>(*this);
  const auto added = std::bit_cast<Numbers>(more);
  std::ranges::transform(sum, added, sum.begin(), std::plus<>());
  return *this = std::bit_cast<StoreCounts>(sum);
}

FoundCauses find_causes(const std::vector<StoreSite>& sites, const ReleaseSites& release_sites) {
  FoundCauses result;
  result.of_sites.reserve(sites.size());
  SampleSum all;
  std::map<std::string_view, Group> groups;
  for (const StoreSite& site : sites) {
    const std::string_view own = result.of_sites.emplace_back(name_of(site, release_sites));
    for (const std::string_view cause : {own, kProgramExit}) {
      const SampleSum sum = samples_of(site, cause);
      if (sum.samples == 0) continue;
      Group& group = groups[cause];
      group.sum += sum;
      group.sites.push_back(&site);
      all += sum;
    }
  }
  if (const auto counts = groups.find(kReferenceCount);
      counts != groups.end() && is_weak(counts->second, release_sites)) {
    const Group few = std::move(counts->second);
    groups.erase(counts);
    for (const StoreSite* site : few.sites) {
      const std::string_view cause = rest_of(*site);
      result.of_sites[static_cast<std::size_t>(site - sites.data())] = cause;
      Group& rest = groups[cause];
      rest.sum += samples_of(*site, kReferenceCount);
      rest.sites.push_back(site);
    }
  }
  result.patterns.reserve(groups.size());
  for (auto& [name, group] : groups) {
    result.patterns.push_back(
        {std::string(name), static_cast<double>(group.sum.copies) / static_cast<double>(all.copies),
         group.sum.samples, evidence(name, group, all.samples, release_sites),
         name == kOwnWrites ? library_of(group) : std::string()});
  }
  std::ranges::stable_sort(result.patterns, std::greater<>(), &CopyPattern::share);
  return result;
}

}  // namespace cowshed::cow
