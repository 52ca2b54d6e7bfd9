#include <algorithm>
#include <array>
#include <fmt/format.h>

#include <cowshed/cow/cause_names.h>
#include <cowshed/tools/cowtop/text/causes.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {

const std::vector<Cause>& causes() {
  static const std::vector<Cause> all = {
      {cow::kReferenceCount, "reads write to the object's header",
       "Python, Perl, PHP and std::shared_ptr keep a count in each object.  Who takes a reference "
       "writes to the object's page, although the program only reads."},
      {cow::kGarbageCollector, "marking an object writes to it",
       "A collector marks objects in their headers, or moves them.  So each collection in a child "
       "writes to pages that it shares."},
      {cow::kFreeList, "malloc and free write to blocks",
       "malloc and free keep lists in the blocks themselves.  A block that is freed in a child, or "
       "used again, writes to a shared page."},
      {cow::kCachedHash, "hashing a key stores the hash in it",
       "The first look-up by a key stores the key's hash in the object.  A copy follows where the "
       "object was made before the fork, and not hashed."},
      {cow::kAdaptiveInterpreter, "running code rewrites itself",
       "Python counts how often an instruction runs, and replaces it by a faster one.  Both write "
       "to the code of the function.  Functions that ran before the fork write less."},
      {cow::kObjectFlags, "using an object marks its header",
       "An interpreter stores in an object's header that it has converted, shared or changed the "
       "object."},
      {cow::kOwnWrites, "the program changes its data",
       "Code of the program itself, or of a library that is neither an interpreter nor the C "
       "library, wrote.  Of an interpreter: it wrote what the program told it to.  CODE has the "
       "place."},
      {cow::kProgramExit, "a program that ends frees what it holds",
       "At its end an interpreter frees every object, and the C library destroys what is static: a "
       "worker that ends writes to all that it shares.  The report leaves these copies out of its "
       "other figures; os._exit() and _exit() avoid them."},
      {cow::kLockOrFlag, "it lies beside shared data",
       "A lock or flag that lies on a page with shared data was written."},
      {cow::kBulkCopy, "memcpy over memory that was shared",
       "memcpy or the like wrote over memory that was shared."},
      {cow::kBulkFill, "memset over memory that was shared",
       "memset or the like wrote over memory that was shared."},
      {cow::kStack, "the stack is written by every call",
       "Calls write return addresses and variables to the stack: a few pages a process."},
      {cow::kRelocation, "the dynamic linker writes addresses",
       "The dynamic linker wrote addresses into a library's data: as it loaded the library, or at "
       "the first use of a function."},
      {cow::kSystemCall, "the kernel stores, as for read(2)",
       "The kernel wrote for the program, as by read(2) into a shared buffer."},
      {cow::kUnknown, "", "The samples are no evidence for one of the other causes."},
  };
  return all;
}

std::string library_in_words(std::string_view library) {
  struct Known {
    std::string_view name;
    std::string_view holds;
  };
  constexpr std::array kKnown = {Known{"libsqlite3.", "page cache"},
                                 Known{"lxml.", "parsed trees"},
                                 Known{"libxml2.", "parsed trees"},
                                 Known{"libpq.", "results of queries"},
                                 Known{"psycopg", "results of queries"},
                                 Known{"numpy.", "arrays"},
                                 Known{"pandas.", "tables"},
                                 Known{"pyarrow.", "tables"},
                                 Known{"libarrow.", "tables"},
                                 Known{"torch.", "tensors"},
                                 Known{"libtorch", "tensors"},
                                 Known{"libc10.", "tensors"},
                                 Known{"libcrypto.", "keys and TLS"},
                                 Known{"libssl.", "keys and TLS"},
                                 Known{"libz.", "buffers"},
                                 Known{"libzstd.", "buffers"},
                                 Known{"libopenblas", "buffers"},
                                 Known{"libLLVM", "a JIT compiler"},
                                 Known{"opcache.", "compiled scripts"},
                                 Known{"node", "V8's heap"},
                                 Known{"libnode", "V8's heap"},
                                 Known{"php", "Zend's heap"},
                                 Known{"libruby", "Ruby's heap"},
                                 Known{"ruby", "Ruby's heap"},
                                 Known{"libperl", "Perl's heap"},
                                 Known{"perl", "Perl's heap"},
                                 Known{"postgres", "catalog caches, plans, work_mem"}};
  const auto found = std::ranges::find_if(
      kKnown, [&](const Known& each) { return library.starts_with(each.name); });
  if (found != kKnown.end())
    return fmt::format("{} ({})", printable(library.substr(0, library.find('.'))), found->holds);
  return library.find('.') == library.npos ? "" : printable(library);
}

std::string cause_in_words(std::string_view name, std::string_view library) {
  const auto found = std::ranges::find(causes(), name, &Cause::name);
  std::string text = printable(name);
  if (found == causes().end() || found->in_words.empty()) return text;
  return text + ": " + (library.empty() ? std::string(found->in_words) : library_in_words(library));
}

}  // namespace cowshed::cowtop
