#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <cowshed/share/arena.h>

// Saves a frozen arena as a file.  Later processes map the file at the same addresses, also on
// another machine that has a copy.  Mapping takes the same time for any size.
//
//   cowshed::save_image(arena, "index.cow");            // frozen, its objects published by name
//
//   auto arena = cowshed::open_image("index.cow");      // later, in any program
//   auto index = cowshed::find<Index>("index");         // Ref<Index>
//
// A file guarantees less than an arena in memory:
// * It has no seals.  A process with write permission can change the data that readers see.  A
//   strict arena prevents only writes by this process.
// * If the file is truncated while it is mapped, reading the lost part raises SIGBUS.  save_image()
//   replaces the file as a whole, so readers of the old file are safe.  Copy files with rename(2).
// * open_image() checks the header and not the payload.  Compare copies by sha256sum.
// * The page cache usually has 4 KiB pages, and the disk is slow.  So first reads raise more page
//   faults and may wait.  prefault() reads the whole file.  ArenaStats counts no huge pages of a
//   file, and collapse() makes none.
// fork() costs the same as with an arena in memory.  A lenient arena's private pages have 4 KiB.
//
// Pointers to code are wrong in another program, and in the same one at other addresses (ASLR); see
// share/spawn_safe.h.  Types are compared by mangled name, size and alignment.  Build both programs
// with the same definitions and the same standard library.
namespace cowshed {

// Saves the arena as this process sees it, and its published objects that have names.
//
// Writes a new file beside `path`, syncs it and renames it to `path`.  After an error `path` is
// unchanged and the new file is removed.  Then syncs the folder; if this process may not read the
// folder, a crash of the machine may bring the old file back.  Replaces a symbolic link instead of
// following it.  The mode is 0644 less the umask.  The file is sparse: pages of zeros take no disk.
//
// Other threads must not write to a lenient arena during the call.  Errors: arena_not_frozen,
// not_inherited, invalid_argument (`path` is a folder or a device), system_call (ENOSPC, EACCES,
// EFBIG past RLIMIT_FSIZE, ...).
//
// Returns the names of the objects that another program cannot use, nor this one at other addresses
// (ASLR), because they are not spawn_safe.
Expected<std::vector<std::string>> save_image(const Arena& arena, const std::filesystem::path& path,
                                              const Progress& progress = nullptr);

struct ImageOptions {
  // strict: a store faults.  lenient: a store copies the page for this process.  Neither changes
  // the file.
  FreezeMode mode = FreezeMode::strict;
  // Publishes the objects under their names, for find().
  bool publish = true;
};

// Maps an image at its arena's addresses.  Returns a frozen arena of the same name, generation and
// capacity, which can be thawed.  Does not read the payload.  Thread-safe.  Errors: bad_image (no
// image, damaged or truncated), unsupported (another format version), address_taken (the message
// names what is there), invalid_argument (a name is in use here, or not a regular file),
// system_call.
Expected<Arena> open_image(const std::filesystem::path& path, const ImageOptions& options = {});

}  // namespace cowshed
