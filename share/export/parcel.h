#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/mapping.h>
#include <cowshed/share/codec.h>
#include <cowshed/share/wire/content.h>

// A parcel: frozen arenas, and what is published in them, on their way to another process of the
// tree: one that was started by exec, or one that existed before they did.  It is a message
// (content.h), or a part of one; its descriptors are the process tree's shared page, then each
// arena's files.  For the launcher; users have arena_transfer.h.
//
// All sizes and times are of the arenas' and objects' number, not of their size.
namespace cowshed {

// All arenas of this process that are frozen.  Of one that is thawed, its last generation.  Of one
// that was never frozen, what is published in it: references to that are `not_inherited` there.
// What this process wrote privately to a lenient arena stays here.  Thread-safe; the arenas' locks
// are held.  Errors: system_call.
Expected<internal::Content> pack_arenas();

// One.  Errors: arena_not_frozen, not_inherited, system_call.
Expected<void> pack_arena(const Arena& arena, Encoder& to);

// Whether the objects are published under their names, or without any.
enum class KeepNames : bool { no, yes };

// Maps them at the same addresses and publishes what was published, so that a Ref's bytes mean the
// same object.  All or nothing.  This process becomes one of the sender's
// tree, unless it is already; it must not have arenas of another.  What is not spawn_safe is
// there, but its references are not_spawn_safe unless the code is at the same addresses.  Objects
// are published until their Arena is destroyed.  Errors: bad_message (damaged), foreign_descriptor
// (one is not what it says: no seals, another size), address_taken (naming what is there),
// wrong_process_tree, invalid_argument (a name is in use), system_call.  Thread-safe.
Expected<std::vector<Arena>> adopt_arenas(Decoder& from, KeepNames names = KeepNames::yes);
Expected<std::vector<Arena>> adopt_arenas(internal::Content content);

// The process has them to its end, or until it is handed others: these are all that there are.  In
// one without threads.
Expected<void> adopt_for_ever(internal::Content content);

// Maps one arena, whose segments count these files.  `who` begins the messages.
Expected<Arena> adopt_arena(ArenaCore::Description arena, std::vector<FileDescriptor> files,
                            Holder holder, const std::string& who);

}  // namespace cowshed
