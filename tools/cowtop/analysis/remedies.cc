#include <algorithm>
#include <bit>
#include <fmt/format.h>

#include <cowshed/cow/cause_names.h>
#include <cowshed/tools/cowtop/analysis/evidence.h>
#include <cowshed/tools/cowtop/analysis/fork_evidence.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/new_evidence.h>
#include <cowshed/tools/cowtop/analysis/remedies.h>

namespace cowshed::cowtop {
namespace {

using enum cow::Language;

// Collections make objects old, which later ones then do not mark.
constexpr const char* kWarmUpRuby = R"(module CowtopCure
  def _fork
    unless $cowtop_is_warm
      $cowtop_is_warm = true
      if Process.respond_to?(:warmup)
        Process.warmup
      else
        4.times { GC.start }
        GC.compact if GC.respond_to?(:compact)
      end
    end
    super
  end
end
Process.singleton_class.prepend(CowtopCure)
)";

Cure variable(const std::string& name, const std::string& value, const std::string& tried_where) {
  return {.name = name + "=" + value, .tried_where = tried_where, .environment = {{name, value}}};
}

// cures_for() replaces "{}" by the folder of the files, and adds the size from which it freezes.
const Cure kCowshedRun = {
    .name = "cowshed run",
    .tried_where =
        "Python 3.12 or newer copies for counts, collections or hashes. The package "
        "must be installed for that Python",
    .prefix = {"cowshed", "run", "--"}};
const Cure kGcFreeze = {.name = "gc.freeze()",
                        .tried_where = "Python's collections copy. COWSHED=gc cowshed run calls it",
                        .environment = {{"COWSHED", "gc"}},
                        .prefix = {"cowshed", "run", "--"}};
const Cure kWarmUp = {.name = "warm up Ruby",
                      .tried_where = "Ruby copies: Process.warmup, or GC.compact",
                      .environment = {{"RUBYOPT", "-r{}/warm_up.rb"}},
                      .files = {{"warm_up.rb", kWarmUpRuby}},
                      .for_good =
                          "call Process.warmup before the fork; before Ruby 3.3: "
                          "4.times { GC.start }; GC.compact"};
const Cure kNoGcInPhp = {.name = "zend.enable_gc=0",
                         .tried_where = "collections of PHP copy",
                         .environment = {{"PHP_INI_SCAN_DIR", ":{}"}},
                         .files = {{"cowtop.ini", "zend.enable_gc=0\n"}},
                         .for_good = "set zend.enable_gc=0 in php.ini"};
const Cure kRareGcInOcaml = variable("OCAMLRUNPARAM", "o=1000000", "collections of OCaml copy");
const Cure kBindNow = variable("LD_BIND_NOW", "1", "the dynamic linker copies");
const Cure kTwoArenas =
    variable("MALLOC_ARENA_MAX", "2", "a process has three threads or more, and all need 16 MiB");
// Both grow by themselves, up to 32 and 64 MiB, so that memory that is free stays.
const Cure kTrim = variable("GLIBC_TUNABLES",
                            "glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=131072",
                            "memory that processes allocate is a fifth of all");
// Each malloc reads its own.
const Cure kHugePages = {
    .name = "huge pages",
    .tried_where =
        "forks of 10 ms or more, or that take a 20th of the time. Keep the variable of "
        "your malloc: glibc, jemalloc, mimalloc",
    .environment = {{"GLIBC_TUNABLES", "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=33554432"},
                    {"MALLOC_CONF", "thp:always"},
                    {"MIMALLOC_ALLOW_LARGE_OS_PAGES", "1"}}};
const Cure kHugePagesInPython = {
    .name = "huge pages, Python",
    .tried_where = "the same, of Python: pymalloc asks for none",
    .environment = {kHugePages.environment.front(), {"PYTHONMALLOC", "malloc"}}};
const Cure kNoHugePages = {.name = "no huge pages",
                           .tried_where = "most of the new memory is zeros in huge pages",
                           .environment = {{"COWSHED", "off"}},
                           .prefix = {"cowshed", "run", "--no-huge-pages", "--"}};
const Cure kSettle = {.name = "cowshed run --settle",
                      .tried_where = "long forks of Python, whose parent hardly writes",
                      .prefix = {"cowshed", "run", "--settle", "--"}};
const Cure kUndo = {.name = "cowshed run --undo",
                    .tried_where = "16 MiB of copies or more are as in the parent",
                    .prefix = {"cowshed", "run", "--undo", "--"}};
const Cure kMerge = {.name = "cowshed run --merge",
                     .tried_where = "16 MiB or more are alike in several processes, and KSM runs",
                     .environment = {{"COWSHED", "off"}},
                     .prefix = {"cowshed", "run", "--merge", "--"}};
const Cure kOnlyMalloc = variable("PYTHONMALLOC", "malloc", "the same, of Python");

// Of several causes: the report adds up what they save.
constexpr std::string_view kRunFirst = "run that code, with that data, once before the fork";
constexpr std::string_view kCompact =
    "call Process.warmup (since Ruby 3.3), or GC.compact, before the fork";
constexpr std::string_view kCollectInR =  // an object is old after two
    "call gc() twice before the fork, and not in children";
constexpr std::string_view kHoldApart =
    "hold the data in an array, mmap or arrow table, or call cowshed.freeze() in Python 3.12 "
    "or newer: gc.freeze() does not stop counts";
constexpr std::string_view kNothing =
    "nothing: a buffer of the child's own takes as much memory as the copy";

// The languages of remedies.
using Languages = std::vector<cow::Language>;
const Languages kPython = {python};
const Languages kOldPython = {old_python};
const Languages kAnyPython = {python, old_python};
const Languages kNative = {native};
const Languages kRuby = {ruby};
const Languages kR = {r};
const Languages kPhp = {php};
const Languages kOcaml = {ocaml};
const Languages kPythonAndNative = {python, old_python, native};
const Languages kAnyLanguage = {};

const std::vector<Remedy> kRemedies = {
    {kOutOfMemory, &of_limit, "raise the limit, or run fewer processes at once", kAnyLanguage,
     nullptr, kSavesNothing},
    {kFailedForks, &of_no_memory,
     "let forks reserve memory again: vm.overcommit_memory=1, a swap file, MAP_NORESERVE, or less "
     "memory that is writable"},
    {kFailedForks, &of_no_processes,
     "allow more processes: pids.max of the cgroup (TasksMax= of systemd), or RLIMIT_NPROC (ulimit "
     "-u)",
     kAnyLanguage, nullptr, kSavesNothing},
    {cow::kReferenceCount, &of_python_cause,
     "call cowshed.freeze() before the fork: then reads write no counts", kPython, &kCowshedRun},
    {cow::kReferenceCount, &of_python_cause, kHoldApart, kOldPython},
    {cow::kReferenceCount, &of_cause,
     "hold read-only data in a frozen arena, by ImmortalPtr instead of shared_ptr, and move "
     "what is written out of it",
     kNative},
    {cow::kReferenceCount, &of_cause,
     "hold the data outside counted objects: a file that is mapped, or a store"},
    {cow::kGarbageCollector, &of_cause, "", kPython, &kCowshedRun},
    {cow::kGarbageCollector, &of_python_cause, "call gc.collect() and gc.freeze() before the fork",
     kAnyPython, &kGcFreeze},
    {cow::kGarbageCollector, &of_cause, kCompact, kRuby, &kWarmUp},
    {cow::kGarbageCollector, &of_cause,
     "collect less in children: Gc.set with a space_overhead of 1000000; Gc.compact before the "
     "fork does not help",
     kOcaml, &kRareGcInOcaml, "OCaml is not installed where the tests run"},
    {cow::kGarbageCollector, &of_cause, kCollectInR, kR},
    {cow::kGarbageCollector, &of_cause,
     "call gc_disable() in children: gc_collect_cycles() before the fork does not help", kPhp,
     &kNoGcInPhp},
    {cow::kGarbageCollector, &of_cause, "run a full collection before the fork"},
    {cow::kFreeList, &of_cause, kCompact, kRuby, &kWarmUp},
    {cow::kFreeList, &of_cause, kCollectInR, kR},
    {cow::kFreeList, &of_freed_blocks,
     "free nothing in the child that was allocated before the fork"},
    {cow::kFreeList, &of_reused_blocks,
     "call malloc_trim(0) of the C library before the fork: children then get no blocks that their "
     "parent has freed"},
    {cow::kCachedHash, &of_python_cause,
     "call cowshed.freeze() before the fork: it stores the hashes", kPython, &kCowshedRun},
    // What hashes a key also counts it, on the same page.
    {cow::kCachedHash, &of_python_cause, kHoldApart, kOldPython},
    {cow::kAdaptiveInterpreter, &of_first_run, kRunFirst},
    {cow::kObjectFlags, &of_first_run, kRunFirst},
    {cow::kObjectFlags, &of_cause, "", kRuby, &kWarmUp},
    {cow::kOwnWrites, &of_own_cause,
     "move what is written, at CODE's lines, out of the data that is shared"},
    {cow::kOwnWrites, &of_cause, "", kRuby, &kWarmUp},
    {cow::kUnknown, &of_missing_names, "install debug symbols, to learn why", kAnyLanguage, nullptr,
     kSavesNothing},
    {cow::kProgramExit, &of_exits, "end children by os._exit(), once their files are closed",
     kAnyPython},
    {cow::kProgramExit, &of_exits, "end children by exit!, once their files are closed", kRuby},
    {cow::kProgramExit, &of_exits, "end children by _exit(), once their files are closed"},
    {cow::kLockOrFlag, &of_own_cause,
     "keep locks and flags on pages of their own, away from shared data"},
    {cow::kBulkCopy, &of_none, kNothing, kAnyLanguage, nullptr, kSavesNothing},
    {cow::kBulkFill, &of_none, kNothing, kAnyLanguage, nullptr, kSavesNothing},
    {cow::kStack, &of_forks,
     "fork fewer processes, or keep them: each copies a few pages of its stack"},
    {cow::kRelocation, &of_dlopen,
     "load the libraries before the fork that children load by dlopen()"},
    {cow::kRelocation, &of_binding, "set LD_BIND_NOW=1: symbols are bound before the fork",
     kAnyLanguage, &kBindNow},
    {cow::kSystemCall, &of_none, kNothing, kAnyLanguage, nullptr, kSavesNothing},
    {kPickling, &of_pickling,
     "send less through queues, pools and pipes: pickling reads each object (tools/pickled "
     "lists what is sent)"},
    {kParentWrites, &of_parent,
     "write less while a child lives: fork when few writes come (a database: on a replica)"},
    {kUnchangedCopies, &of_unchanged,
     "give back the copies that changed nothing (cowshed run --undo)", kAnyLanguage, &kUndo},
    {kUnchangedCopies, &of_equal_pages, "", kAnyLanguage, &kMerge},
    {kPrograms, &of_programs, "start programs by posix_spawn() or vfork(), which copy nothing"},
    {kStartedAlike, &of_started_alike,
     "load it once, in a process that forks the others (in Python: multiprocessing's fork, "
     "cowshed.get_context(), gunicorn --preload)"},
    {"uvicorn", &of_server_started,
     "start it by gunicorn -k uvicorn.workers.UvicornWorker --preload, which loads the application "
     "once and forks its workers"},
    {"loky", &of_server_started,
     "fork joblib's workers: Parallel(backend='multiprocessing'); loky starts each as a program"},
    {"supervisord", &of_server_started,
     "let supervisor start one program that loads it and forks its workers, in place of several",
     kAnyLanguage, nullptr, "the same as of processes started alike"},
    {"pytest", &of_server_started,
     "pytest-xdist starts each worker as a program: have them forked (cowshed run --warm), run "
     "fewer (-n), or map large data from a file",
     kAnyLanguage, nullptr, kSavesNothing},
    {"node", &of_server_grown,
     "Node's processes share no memory: run fewer, use worker threads with a SharedArrayBuffer, or "
     "bound each heap by --max-old-space-size",
     kAnyLanguage, nullptr, kSavesNothing},
    {"joblib", &of_arrays_sent,
     "let joblib map large arrays from a file: leave Parallel's max_nbytes at 1M, or joblib.load() "
     "with mmap_mode",
     kAnyLanguage, nullptr, kSavesNothing},
    {"postgres", &of_server_grown,
     "hold fewer backends: a pooler such as pgbouncer; in each, a smaller work_mem, and DISCARD "
     "PLANS",
     kAnyLanguage, nullptr, kSavesNothing},
    {"php-fpm", &of_server_grown,
     "bound what workers keep: fewer pm.max_children, and pm.max_requests; what scripts build "
     "alike belongs into constant arrays, which opcache shares",
     kAnyLanguage, nullptr, kSavesNothing},
    {"libsqlite3", &of_library,
     "bound SQLite's page cache by PRAGMA cache_size, or share the file's pages by PRAGMA "
     "mmap_size (neither bounds :memory:)"},
    {cow::kImport, &of_imports, "import before the fork what is imported now at CODE's lines"},
    {kSparsePages, &of_sparse_pages,
     "keep huge pages from memory that is written here and there (MADV_NOHUGEPAGE, or cowshed run "
     "--no-huge-pages): most of theirs is zeros",
     kAnyLanguage, &kNoHugePages},
    {cow::kOwnData, &of_own_data,
     "build before the fork what each process builds alike at CODE's lines: load the "
     "application in the parent, fill its caches"},
    {cow::kReceived, &of_received,
     "send references: load what is sent before the fork, or publish() it", kPythonAndNative},
    {cow::kReceived, &of_received, "load before the fork what is sent to each process"},
    {cow::kLoaded, &of_loaded, "read before the fork, or map, what CODE's lines read"},
    {kPageTablesOfForks, &of_page_tables, "settle the heap before the fork (cowshed run --settle)",
     kAnyPython, &kSettle},
    {kPageTablesOfForks, &of_page_tables, "settle the heap before the fork (cowshed::settle())",
     kNative},
    {kSmallPages, &of_small_pages,
     "hold the heap in huge pages (GLIBC_TUNABLES=glibc.malloc.hugetlb=1, or MADV_HUGEPAGE)",
     kNative, &kHugePages},
    {kSmallPages, &of_small_pages, "", kAnyPython, &kHugePagesInPython},
    {kThreadsAtFork, &of_threads,
     "start children by a server without threads: get_context('forkserver') of multiprocessing, or "
     "fork before threads start",
     kAnyPython, nullptr, kSavesNothing},
    {kMallocArenas, &of_many_arenas, "", kAnyLanguage, &kTwoArenas},
    {cow::kFreeInMalloc, &of_free_blocks,
     "call malloc_trim(0) of the C library when a burst is over"},
    {cow::kFreeInMalloc, &of_own_memory, "", kAnyLanguage, &kTrim},
    {cow::kFreeInPymalloc, &of_free_blocks,
     "do bursts in a child that ends (maxtasksperchild=1), or start with PYTHONMALLOC=malloc and "
     "call malloc_trim(0) after them: pymalloc gives back only whole arenas",
     kAnyPython},
    {cow::kFreeInPymalloc, &of_own_memory, "", kAnyPython, &kOnlyMalloc},
};

std::string names_of(const std::vector<cow::Language>& languages) {
  std::string names;
  for (const cow::Language each : languages)
    names += (names.empty() ? "" : ", ") + std::string(title_of(each));
  return names.empty() ? "elsewhere" : "in " + names;
}

// cowshed run leaves small processes alone. The parent holds a little more or less from run to run.
Cure sized(Cure cure, const Evidence& evidence) {
  if (!cure.freezes()) return cure;
  std::uint64_t least = kFrozenFrom * 2;
  if (evidence.summary != nullptr) {
    for (const ProcessGroup& each : evidence.summary->groups)
      if (each.shared_bytes && *each.shared_bytes >= kLeastBytes)
        least = std::min(least, *each.shared_bytes);
  }
  const std::uint64_t above = std::bit_floor(std::max<std::uint64_t>(least >> 20U, 2) * 2 / 3);
  if (above < kFrozenFrom >> 20U)
    cure.prefix.insert(cure.prefix.begin() + 2, {"--above", fmt::format("{}MiB", above)});
  return cure;
}

bool is_of_copies(const Remedy& remedy) {
  return remedy.when == &of_cause || remedy.when == &of_own_cause ||
         remedy.when == &of_python_cause;
}

// Whether the measurement supports the cure: by all causes together that it is for.  True also
// where the causes are not known.
bool fits(const Cure& cure, const Evidence& evidence, cow::Language language) {
  std::uint64_t bytes = 0;
  bool is_of_any_copies = false;
  for (const Remedy& each : remedies()) {
    const bool is_meant =
        each.cure == &cure &&
        (is_for(each, language) || (evidence.summary == nullptr && language == native));
    if (!is_meant) continue;
    if (evidence.summary == nullptr) return true;
    if (is_of_copies(each)) {
      is_of_any_copies = true;
      bytes += bytes_against(each, evidence);
    } else if (!each.when(each, evidence).empty()) {
      return true;
    }
  }
  if (!is_of_any_copies) return false;
  const Summary& summary = *evidence.summary;
  if (summary.sharers == 0 || summary.copied_bytes < kLeastBytes) return false;
  const bool is_known = evidence.measurement->sampled && !summary.causes.empty();
  return !is_known || is_much(bytes, summary.copied_bytes);
}

}  // namespace

const std::vector<Remedy>& remedies() { return kRemedies; }

bool is_for(const Remedy& remedy, cow::Language language) {
  const auto names = [&](const Remedy& each) {
    return std::ranges::find(each.in, language) != each.in.end();
  };
  if (!remedy.in.empty()) return names(remedy);
  return std::ranges::none_of(remedies(), [&](const Remedy& each) {
    return each.cause == remedy.cause && !each.text.empty() && names(each);
  });
}

std::vector<std::string> remedy_lines(std::string_view cause) {
  std::vector<const Remedy*> of_cause;
  for (const Remedy& each : remedies())
    if (each.cause == cause && !each.text.empty()) of_cause.push_back(&each);
  const bool is_for_all =
      std::ranges::all_of(of_cause, [](const Remedy* each) { return each->in.empty(); });
  std::vector<std::string> lines;
  for (const Remedy* each : of_cause)
    lines.push_back((is_for_all ? "" : names_of(each->in) + ": ") + std::string(each->text));
  return lines;
}

std::vector<Advice> advise(const cow::Measurement& measurement, const Summary& summary) {
  const Evidence evidence = {&measurement, &summary};
  std::vector<Advice> result;
  for (const Remedy& remedy : remedies()) {
    const Share* share = share_of(remedy.cause, evidence);
    if (remedy.text.empty() || !is_for(remedy, share ? share->language : summary.language))
      continue;
    for (Offer& offer : remedy.when(remedy, evidence)) {
      std::string text = offer.text.empty() ? std::string(remedy.text) : std::move(offer.text);
      const auto same = std::ranges::find(result, text, &Advice::text);
      if (same != result.end()) {
        same->saves_bytes = std::min(same->saves_bytes + offer.saves_bytes,
                                     summary.copied_bytes + summary.new_bytes);
        same->is_known = same->is_known && offer.is_known;
      } else {
        result.push_back(
            {&remedy, std::move(text), offer.saves_bytes, offer.is_known, offer.is_urgent});
      }
    }
  }
  // The report has two: the one for the names that CODE lacks is the second, whatever it saves.
  std::ranges::stable_sort(result, std::greater<>(), [](const Advice& each) {
    return std::pair(each.is_urgent, each.saves_bytes);
  });
  const auto for_names = std::ranges::find(result, cow::kUnknown,
                                           [](const Advice& each) { return each.remedy->cause; });
  if (for_names != result.end() && for_names - result.begin() > 1)
    std::rotate(result.begin() + 1, for_names, for_names + 1);
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i].rank = i;
    constexpr std::uint64_t kMiBytes = 1 << 20;  // "at most": the report rounds to these
    result[i].saves_bytes = (result[i].saves_bytes + kMiBytes - 1) / kMiBytes * kMiBytes;
  }
  return result;
}

std::vector<Cure> cures_for(const Evidence& evidence, cow::Language language,
                            std::string_view folder) {
  if (evidence.summary != nullptr && evidence.summary->language != native)
    language = evidence.summary->language;
  std::vector<const Cure*> cures;
  for (const Remedy& each : remedies())
    if (each.cure != nullptr && std::ranges::find(cures, each.cure) == cures.end())
      cures.push_back(each.cure);
  std::vector<Cure> result;
  for (const Cure* cure : cures)
    if (fits(*cure, evidence, language)) result.push_back(sized(*cure, evidence));
  for (Cure& cure : result)
    for (auto& [name, value] : cure.environment)
      if (const auto at = value.find("{}"); at != value.npos) value.replace(at, 2, folder);
  return result;
}

}  // namespace cowshed::cowtop
