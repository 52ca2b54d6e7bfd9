#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/copy_profile.h>
#include <cowshed/probes/samples.h>

// Names why a forked process got a page of new memory, from the stack that first wrote to it.  The
// first rule that holds decides:
//
// "unknown"           There was no room for the page's sample.
// "thread stack"      The page is of the stack that the thread runs on.
// "free in malloc"    The program has freed it, and malloc() of the C library keeps the page.
// "free in pymalloc"  The same of Python's allocator of small objects.
// "import of NAME"    Python imports a module, by an import that began after the fork.  NAME is the
//                     outermost such module whose code runs, by its file: "pkg.mod" below
//                     site-packages, dist-packages and Python's own library, else "mod".  Until it
//                     runs, "import at FILE:LINE" is the line that imports.
// "received"          Below a function that unpickles or unserialises, or in recv(2) and the like.
//                     A function of Python is one by its place in Python's library or in an
//                     installed package, not by the name of its file.
// "compiled code"     Below a compiler of Python, PHP, Perl or Ruby, or of the JIT compilers of
// LLVM
//                     and V8, but not below the code that it runs.
// "received"          The kernel wrote in read(2) or the like, from a pipe or a socket.
// "loaded"            The kernel wrote so from a file, or fread() copied from its buffer.  No rule
//                     names reads of other devices, such as a terminal or /dev/urandom.
// "given back since"  It had the page when it held most, and no longer: of a request's buffer, say.
// "own data"          All else.
namespace cowshed::cow {

// What is known of a new page beside the stack.
enum class NewPage : std::uint8_t { held, free, free_in_pymalloc, given_back, of_stack, missed };

// `imports`: imports_in() of the stack of the fork, which the child has below all of its own.
// `descriptor`: of the system call in which the kernel wrote.
NewMemoryCause cause_of_new_memory(const std::vector<Frame>& stack, std::size_t imports,
                                   NewPage page, Descriptor descriptor = Descriptor::none);

// Returns whose code touched memory first, by site_frames() of its stack: the library of the
// innermost frame that is in one that works for itself (is_working_library()), as its file or, of a
// module of Python, "lxml.etree".  Else, where the line has no source, the file that it is in: a
// server's or an interpreter's.
std::string maker_of(const std::vector<Frame>& site);

// Whether the function is of a compiler.  Those of CPython are also named in stripped builds, which
// export them.
bool is_compiler(const Frame& frame);

// The imports of Python that run in a stack.
std::size_t imports_in(const std::vector<Frame>& stack);

}  // namespace cowshed::cow
