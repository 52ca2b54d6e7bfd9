#pragma once

#include <filesystem>

#include <cowshed/share/arena.h>

// A frozen arena as a file: saved once, mapped by any later process at the same addresses in a time
// that does not depend on its size, also on another machine that got a copy of the file.
//
//   cowshed::save_image(arena, "index.cow");            // frozen, its objects published by name
//
//   auto arena = cowshed::open_image("index.cow");      // later, in any program
//   auto index = cowshed::find<Index>("index");         // Ref<Index>
//
// What a sealed memfd guarantees, a file does not:
// * No seals: whoever may write to the file changes what its readers see, at any time.  A strict
//   arena keeps only this process from it.
// * A file that is truncated while it is mapped: reading what is gone is SIGBUS.  save_image()
//   replaces a file as a whole, which leaves those who have the old one mapped undisturbed; copy
//   with rename(2) too.
// * open_image() checks what comes before the payload, not the payload: compare copies by
// sha256sum.
// * The page cache has 4 KiB pages, unless the file system gives large ones, and the disk is
//   slower: first reads raise more page faults, and may wait.  prefault() reads all of it at once.
//   ArenaStats knows no huge pages of it, and collapse() makes none.
// * fork() costs the same, for no page table of the file is copied; a lenient arena's private pages
//   are 4 KiB each, as in a memfd.
//
// What does not carry over to another program, or to the same one at other addresses (ASLR), is
// code: see spawn_safe.h.  Types are told by their mangled name, size and alignment: have the same
// definitions and the same standard library in both.
namespace cowshed {

// Writes what this process sees of the arena, and its published objects that have names.  Makes a
// new file beside `path`, syncs it to disk and puts it in the place of `path` at once; on an error,
// `path` is as it was, and nothing is left of the new file.  Syncs the folder last; where that
// fails, as in a folder that this process may not read, a crash of the machine may bring the old
// file back.  A symbolic link at `path` is replaced, not followed.  Mode 0644 less the
// umask.  2 MiB-aligned and sparse: pages of zeros take no disk.  Other threads must not write
// to a lenient arena meanwhile.  Errors: arena_not_frozen, not_inherited, invalid_argument (`path`
// is a folder, a device or the like), system_call (ENOSPC, EACCES, EFBIG past RLIMIT_FSIZE, ...).
Expected<void> save_image(const Arena& arena, const std::filesystem::path& path,
                          const Progress& progress = nullptr);

struct ImageOptions {
  // strict: a store faults, see FreezeMode; lenient: it copies the page for the process.  Neither
  // ever changes the file.
  FreezeMode mode = FreezeMode::strict;
  // Enter its published objects under their names, for find().
  bool publish = true;
};

// Maps the image where its arena was: a frozen one, of the same name, generation and capacity, that
// can be thawed.  Does not read the payload.  Errors: bad_image (no image, damaged, truncated),
// unsupported (another format version), address_taken (naming what is there), invalid_argument (a
// name is in use here; not a regular file), system_call.  Thread-safe.
Expected<Arena> open_image(const std::filesystem::path& path, const ImageOptions& options = {});

}  // namespace cowshed
