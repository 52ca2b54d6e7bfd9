#include <algorithm>
#include <utility>

#include <cowshed/cow/cause_names.h>
#include <cowshed/tools/cowtop/text/causes.h>

namespace cowshed::cowtop {
namespace {

// Of several causes: the report adds up what they save.
constexpr std::string_view kRunFirst = "run that code, with that data, once before the fork";
constexpr std::string_view kCompact =
    "call Process.warmup (since Ruby 3.3), or GC.compact, before the fork";
constexpr std::string_view kCollectInR =  // an object is old after two
    "call gc() twice before the fork, and not in children";
constexpr std::string_view kAllocateInChild = "allocate in the child what it overwrites";

std::string names_of(const std::vector<Language>& languages) {
  std::string names;
  for (const Language each : languages)
    names += (names.empty() ? "" : ", ") + std::string(title_of(each));
  return names.empty() ? "elsewhere" : "in " + names;
}

}  // namespace

const std::vector<Cause>& causes() {
  static const std::vector<Cause> all = {
      {cow::kReferenceCount,
       Code::others,
       "reads write to the object's header",
       "Python, Perl, PHP and std::shared_ptr keep a count in each object.  Who takes a reference "
       "writes to the object's page, although the program only reads.",
       {{{Language::python}, "call cowshed.freeze() before the fork: then reads write no counts"},
        {{Language::old_python},
         "hold the data in an array, mmap or arrow table, or call cowshed.freeze() in Python 3.12 "
         "or newer: gc.freeze() does not stop counts"},
        {{Language::native},
         "hold read-only data in a frozen arena, by ImmortalPtr instead of shared_ptr, and move "
         "what "
         "is written out of it"},
        {{}, "hold the data outside counted objects: a file that is mapped, or a store"}}},
      {cow::kGarbageCollector,
       Code::others,
       "marking an object writes to it",
       "A collector marks objects in their headers, or moves them.  So each collection in a child "
       "writes to pages that it shares.",
       {{{Language::python, Language::old_python},
         "call gc.collect() and gc.freeze() before the fork"},
        {{Language::ruby}, kCompact},
        {{Language::ocaml},
         "collect less in children: Gc.set with a space_overhead of 1000000; Gc.compact before the "
         "fork does not help"},
        {{Language::r}, kCollectInR},
        {{Language::php},
         "call gc_disable() in children: gc_collect_cycles() before the fork does not help"},
        {{}, "run a full collection before the fork"}}},
      {cow::kFreeList,
       Code::own,
       "malloc and free write to blocks",
       "malloc and free keep lists in the blocks themselves.  A block that is freed in a child, or "
       "used again, writes to a shared page.",
       {{{Language::ruby}, kCompact},
        {{Language::r}, kCollectInR},
        {{}, "free nothing in the child that was allocated before the fork"}}},
      {cow::kCachedHash,
       Code::others,
       "hashing a key stores the hash in it",
       "The first look-up by a key stores the key's hash in the object.  A copy follows where the "
       "object was made before the fork, and not hashed.",
       {{{Language::python}, "call cowshed.freeze() before the fork: it stores the hashes"},
        {{}, "look each key up once before the fork"}}},
      {cow::kAdaptiveInterpreter,
       Code::others,
       "running code rewrites itself",
       "Python counts how often an instruction runs, and replaces it by a faster one.  Both write "
       "to the code of the function.  Functions that ran before the fork write less.",
       {{{}, kRunFirst}}},
      {cow::kObjectFlags,
       Code::others,
       "using an object marks its header",
       "An interpreter stores in an object's header that it has converted, shared or changed the "
       "object.",
       {{{}, kRunFirst}}},
      {cow::kOwnWrites,
       Code::own,
       "the program changes its data",
       "Code of the program itself, or of a library that is neither an interpreter nor the C "
       "library, wrote.  Of an interpreter: it wrote what the program told it to.  CODE has the "
       "place.",
       {{{}, "move what is written, at CODE's lines, out of the data that is shared"}}},
      {cow::kProgramExit,
       Code::others,
       "a program that ends frees what it holds",
       "At its end an interpreter frees every object, and the C library destroys what is static: a "
       "worker that ends writes to all that it shares.  The report leaves these copies out of its "
       "other figures; os._exit() and _exit() avoid them.",
       {{{Language::python, Language::old_python},
         "end children by os._exit(), once their files are closed"},
        {{Language::ruby}, "end children by exit!, once their files are closed"},
        {{}, "end children by _exit(), once their files are closed"}}},
      {cow::kLockOrFlag,
       Code::own,
       "it lies beside shared data",
       "A lock or flag that lies on a page with shared data was written.",
       {{{}, "keep locks and flags on pages of their own, away from shared data"}}},
      {cow::kBulkCopy,
       Code::own,
       "memcpy over memory that was shared",
       "memcpy or the like wrote over memory that was shared.",
       {{{}, kAllocateInChild}}},
      {cow::kBulkFill,
       Code::own,
       "memset over memory that was shared",
       "memset or the like wrote over memory that was shared.",
       {{{}, kAllocateInChild}}},
      {cow::kStack,
       Code::others,
       "the stack is written by every call",
       "Calls write return addresses and variables to the stack: a few pages a process.",
       {{{}, "fork fewer processes, or keep them: each copies a few pages of its stack"}}},
      {cow::kRelocation,
       Code::others,
       "the dynamic linker writes addresses",
       "The dynamic linker wrote addresses into a library's data: as it loaded the library, or at "
       "the first use of a function.",
       {{{}, "load the libraries before the fork that children load by dlopen()"},
        {{}, "set LD_BIND_NOW=1: symbols are bound before the fork"}}},
      {cow::kSystemCall,
       Code::others,
       "the kernel stores, as for read(2)",
       "The kernel wrote for the program: read(2) into a shared buffer, say.",
       {{{}, "allocate in the child the buffers that it reads into"}}},
      {cow::kUnknown,
       Code::others,
       "",
       "The samples are no evidence for one of the other causes.",
       {{{}, "install debug symbols, to learn why"}}},
  };
  return all;
}

const Cause* find_cause(std::string_view name) {
  const auto found = std::ranges::find(causes(), name, &Cause::name);
  return found == causes().end() ? nullptr : &*found;
}

std::string_view remedy_for(std::string_view cause, Language language) {
  const Cause* known = find_cause(cause);
  if (known == nullptr) return "";
  for (const Remedy& each : known->remedies)
    if (each.in.empty() || std::ranges::find(each.in, language) != each.in.end()) return each.text;
  return "";
}

std::vector<std::string> remedy_lines(const Cause& cause) {
  const bool is_for_all =
      std::ranges::all_of(cause.remedies, [](const Remedy& each) { return each.in.empty(); });
  std::vector<std::string> lines;
  for (const Remedy& each : cause.remedies)
    lines.push_back((is_for_all ? "" : names_of(each.in) + ": ") + std::string(each.text));
  return lines;
}

}  // namespace cowshed::cowtop
