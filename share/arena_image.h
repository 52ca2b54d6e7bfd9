#pragma once

#include <filesystem>

#include <cowshed/share/arena.h>

// A frozen arena as a file.  Later processes map it at the same addresses, also on another machine,
// in a time that does not depend on its size.
//
//   cowshed::save_image(arena, "index.cow");            // frozen, its objects published by name
//
//   auto arena = cowshed::open_image("index.cow");      // later, in any program
//   auto index = cowshed::find<Index>("index");         // Ref<Index>
//
// A file guarantees less than a sealed memfd:
// * A process that may write to the file can change what its readers see, at any time.
// * If the file is truncated while it is mapped, a read of the lost part raises SIGBUS.
// save_image()
//   replaces the whole file, and processes that map the old one keep it.  Use rename(2) for copies.
// * open_image() checks the file's head, but not the payload.  Compare copies by sha256sum.
// * Most file systems cache 4 KiB pages.  So first reads raise more page faults, and wait for the
//   disk; prefault() reads all at once.  ArenaStats counts no huge pages, and collapse() makes
//   none.
//
// fork() costs the same as with a memfd.  Pointers to code are not valid in another program, nor in
// the same program at other addresses (ASLR): see spawn_safe.h.  Types are recognised by mangled
// name, size and alignment.  Build both programs with the same definitions and standard library.
namespace cowshed {

// Saves the arena as this process sees it, and its published objects that have names.  Writes a new
// file beside `path`, syncs it to disk, and renames it to `path`.  On an error `path` is unchanged
// and the new file is removed.  A symbolic link at `path` is replaced, not followed.  The file has
// mode 0644 less the umask, and is sparse: pages of zeros take no disk.  If the folder cannot be
// synced, because this process may not read it, a crash of the machine may bring the old file back.
//
// Other threads must not write to a lenient arena meanwhile.  Errors: arena_not_frozen,
// not_inherited, invalid_argument (`path` is a folder, a device or the like), system_call (ENOSPC,
// EACCES, EFBIG beyond RLIMIT_FSIZE, ...).
Expected<void> save_image(const Arena& arena, const std::filesystem::path& path,
                          const Progress& progress = nullptr);

struct ImageOptions {
  // See FreezeMode.  Neither mode ever writes to the file.
  FreezeMode mode = FreezeMode::strict;
  // Publish its objects under their names, for find().
  bool publish = true;
};

// Maps an image at the addresses of its arena.  Returns a frozen arena with the same name,
// generation and capacity, which can be thawed.  Does not read the payload.  Thread-safe.  Errors:
// bad_image (no image, damaged, truncated), unsupported (another version of the format),
// address_taken (the message says by what), invalid_argument (a name is in use, or not a regular
// file), system_call.
Expected<Arena> open_image(const std::filesystem::path& path, const ImageOptions& options = {});

}  // namespace cowshed
