#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/mapping.h>
#include <cowshed/share/codec.h>
#include <cowshed/share/wire/content.h>

// The room share/export: frozen arenas for other processes.  It may use base, share/os,
// share/jemalloc, share/process, share/arena, share/registry and share/wire.
//
// A parcel describes frozen arenas and the objects published in them, for a process that did not
// inherit them.  It is a message (share/wire/content.h) or a part of one.  Its descriptors are the
// process tree's memfd and then each arena's files.  Users have share/arena_transfer.h.
//
// Size and time grow with the number of arenas and objects, and not with their size.  All functions
// are thread-safe, except for adopt_for_ever().
namespace cowshed::internal {

// Packs all frozen arenas of this process, and the last generation of each thawed arena.  Of arenas
// that were never frozen it packs the list of objects, so that references to them fail with
// not_inherited.  Private writes to lenient arenas are not packed.  Errors: system_call.
Expected<Content> pack_arenas();

// The most bytes of a parcel from outside, which may claim any size.  A full registry needs some
// 20 MiB.
constexpr std::uint64_t kMostParcel = 256 << 20;

// Packs one arena.  Errors: arena_not_frozen, not_inherited, system_call.
Expected<void> pack_arena(const Arena& arena, Encoder& to);

// The error for an exception of an Encoder.
tl::unexpected<Error> packing_error(const std::runtime_error& failure);

// Whether the receiver publishes the objects under their names.
enum class KeepNames : bool { no, yes };

// Maps the arenas at the same addresses and publishes their objects, all or none.  A Ref's bytes
// then mean the same object.  Objects stay published until their Arena is destroyed.
//
// This process joins the sender's process tree.  It must have no arenas of another tree.  If its
// code lies at other addresses, objects that are not spawn_safe fail with not_spawn_safe.
//
// Errors: bad_message (damaged), foreign_descriptor (a file without seals, or of another size),
// address_taken (the message names what is there), wrong_process_tree, invalid_argument (a name is
// in use), system_call.
//
// `had` are arenas of earlier parcels.  Those that this parcel has too stay mapped, with what was
// written to them and published in them here.  The others are destroyed.
Expected<std::vector<Arena>> adopt_arenas(Decoder& from, KeepNames names,
                                          std::vector<Arena> had = {});
Expected<std::vector<Arena>> adopt_arenas(Content content, std::vector<Arena> had = {});

// Adopts arenas and keeps them until the process ends or the next call replaces them.  Not
// thread-safe.
Expected<void> adopt_for_ever(Content content);

// Maps one arena.  Its segments' `fd` are indices into `files`.  `who` begins error messages.
Expected<Arena> adopt_arena(ArenaCore::Description arena, std::vector<FileDescriptor> files,
                            addresses::Holder holder, const std::string& who);

}  // namespace cowshed::internal
