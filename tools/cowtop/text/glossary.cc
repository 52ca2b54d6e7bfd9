#include <algorithm>

#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/figures.h>
#include <cowshed/tools/cowtop/text/causes.h>
#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/glossary.h>

namespace cowshed::cowtop {
namespace {

std::vector<Term> all_terms() {
  std::vector<Term> terms = {
      {"WHO",
       "The processes, alike ones in one row: same name, same parent or root, same end.  Indented: "
       "forked by a measured process.  --all has a row for each."},
      {"FORKS",
       "Children that lived one after another, such as saves of a database, for which their parent "
       "copied 1 MiB or more: what each cost."},
      {"WHAT",
       "The mappings that were copied: the heap, a library's data, a frozen arena.  "
       "Estimated from samples; arenas exactly.  Its percentages, and those of OBJECTS and CODE, "
       "are of all samples, which also have copies of a program's start."},
      {"WHY", "How the copied pages were first written to, as far as samples tell."},
      {"OBJECTS",
       "The types of the Python objects whose heads were written: their reference count, links of "
       "the collector, or cached hash.  The first object that is written on a page has the "
       "page's copy.  Estimated from samples."},
      {"CODE",
       "The innermost lines outside the C library that caused copies.  Of Python: the innermost "
       "line of the program's own files, else of an installed package, else of Python's library."},
      {"container",
       "The container of a process, by its cgroup: the first 12 digits of its ID, or of its "
       "Kubernetes pod's UID.  In rows of --all, and wherever several containers are measured."},
      {"TRY", "Remedies that the evidence supports, and how much memory each saves at most."},
      {"PSS",
       "Proportional set size: a page that n processes map counts as 1/n in each.  The sum over "
       "processes is what they take together, but for hugetlbfs.  Read from /proc/PID/smaps_rollup "
       "while they run."},
      {"cgroup",
       "The memory cgroup (v2) that the command has to itself.  Its peak (memory.peak) has page "
       "cache and kernel memory, as limits count them.  The kernel drops page cache before it "
       "kills."},
      {"PAGE TABLES",
       "Memory of the kernel that maps the processes' memory.  Each process has its own."},
      {"EXACT", "Every write fault was counted by eBPF in the kernel; 0 events lost."},
      {"SAMPLED",
       "Counted from /proc now and then.  Processes that end between two looks are missed, and a "
       "page that is no longer shared may have been copied by parent or child."},
      {"LOST", "Events for which the kernel had no memory: the counts are too low."},
      {"END", "Exit status or signal, or whether the process still runs.", true},
  };
  for (const cow::Figure& each : cow::kFigures)
    if (!each.title.empty()) terms.push_back({each.title, each.meaning, true});
  for (const cow::CountInfo& each : cow::kCounts)
    if (*each.column != '\0') terms.push_back({each.column, each.meaning, true});
  for (const Cause& cause : causes()) terms.push_back({cause.name, cause.meaning});
  const std::vector<Term> further = {
      {"anonymous",
       "Memory without a file behind it, from mmap(2), such as large blocks of malloc."},
      {"[heap]", "Memory from brk(2): the small blocks of malloc."},
      {"heap, settled", "Memory that the program has moved by cowshed::settle()."},
      {"new memory",
       "What no fork shared, so that no remedy against copies helps.  Its causes are in the block "
       "NEW, estimated from samples: import, received, loaded, compiled code, thread stack, given "
       "back since, free in malloc, free in pymalloc, own data.  The block stands in place of "
       "WHAT and WHY where more is new than copied."},
      {cow::kImport,
       "Of new memory: Python imports a module after the fork.  \"import of NAME\" is the "
       "outermost module whose code runs.  \"import at FILE:LINE\" is the line that imports, "
       "before the module's code runs or of a module in C."},
      {cow::kReceived,
       "Of new memory: objects that are unpickled or unserialised, and what is read from a pipe or "
       "a socket."},
      {cow::kLoaded, "Of new memory: what read(2), fread() and the like read from a file."},
      {cow::kCompiledCode,
       "Of new memory: what the compilers of Python, PHP, Perl and Ruby made, and those of LLVM "
       "and V8."},
      {cow::kThreadStack, "The stack that a thread runs on."},
      {cow::kFreeInMalloc,
       "Of new memory: the program has freed it, and malloc() of the C library keeps the pages.  "
       "malloc_trim(3) gives them back."},
      {cow::kFreeInPymalloc,
       "Of new memory: the program has freed it, and Python's allocator of objects of up to 512 "
       "bytes keeps the pages, until an arena of 1 MiB has no object at all."},
      {cow::kGivenBackSince,
       "Of new memory: the process had it when it held most, and gave it back, as a request's "
       "buffer.  At rest it takes nothing."},
      {cow::kNoWriteFault,
       "Of new memory: pages that were there without a write of the program, as by mlock(2), "
       "MAP_POPULATE or O_DIRECT.  They are in no line of CODE."},
      {cow::kOwnData, "All other new memory: what the process builds itself.  CODE has the lines."},
      {"not counted",
       "Copies that COPIED leaves out: first writes to private pages of files, those while "
       "programs end (see \"program exit\") and those before cowtop came."},
      {"ran a program",
       "The process executed another program, and so gave up what it shared with its parent."},
      {"older",
       "Forked before cowtop looked: what it and its parent copied until then is not counted."},
      {"still runs",
       "The command has ended, but processes that it started have not, a daemon say.  What they "
       "copy from there on is in no figure; measure them with -p."},
      {"unread",
       "PSS is read now and then.  Where the processes grew in between, or ended, the peak is a "
       "range, up to what they had allocated at one time."},
      {"frozen",
       "Of an arena: sealed, so that ordinary stores fail.  Of Python: made immortal by "
       "cowshed.freeze(), so that reading an object writes no reference count."},
      {"culprits", "In a verdict of cowtop check: the code and memory with most of the copies."},
      {"eBPF",
       "Programs in the kernel that count each write fault.  They need root, or CAP_BPF and "
       "CAP_PERFMON."},
  };
  terms.insert(terms.end(), further.begin(), further.end());
  return terms;
}

}  // namespace

const std::vector<Term>& glossary() {
  static const std::vector<Term> terms = all_terms();
  return terms;
}

const Term* find_term(std::string_view word) {
  cow::NewMemoryCause cause;  // "import of shop"
  from_name(std::string(word), cause);
  word = cause.kind;
  const auto bare = [](std::string_view text) {
    if (text.starts_with('[')) text.remove_prefix(1);
    if (text.ends_with(']')) text.remove_suffix(1);
    return text;
  };
  const auto found = std::ranges::find_if(glossary(), [&](const Term& term) {
    return bare(term.word).size() == bare(word).size() && live::contains(term.word, bare(word));
  });
  return found == glossary().end() ? nullptr : &*found;
}

}  // namespace cowshed::cowtop
