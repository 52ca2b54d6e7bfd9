#pragma once

#include <cstdint>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/descriptor.h>

// Frozen arenas, and what is published in them, on their way to another process of the tree: one
// that was started by exec, or one that existed before they did.  For the launcher; users have
// arena_transfer.h.
//
//   auto parcel = pack_arenas();          // here; pass the descriptors on in their order,
//   auto arenas = adopt_arenas(parcel);   // by number or by send_parcel(), and there:
//
// All sizes and times are of the arenas' and objects' number, not of their size.
namespace cowshed {

// The first is a memfd with all that is to be said; it names the others by their index: the process
// tree's shared page, then each arena's files.
struct Parcel {
  std::vector<Descriptor> descriptors;  // CLOEXEC
};

// All arenas of this process that are frozen.  Of one that is thawed, its last generation.  Of one
// that was never frozen, what is published in it: references to that are `not_inherited` there.
// What this process wrote privately to a lenient arena stays here.  Thread-safe; the arenas' locks
// are held.  Errors: system_call.
Expected<Parcel> pack_arenas();

// One.  Errors: arena_not_frozen, not_inherited, system_call.
Expected<Parcel> pack_arena(const Arena& arena);

// Whether the objects are published under their names, or without any.
enum class Names : std::uint8_t { taken_over, left_behind };

// Maps them at the same addresses and publishes what was published, so that a Ref's bytes mean the
// same object.  All or nothing.  This process becomes one of the sender's
// tree, unless it is already; it must not have arenas of another.  What is not spawn_safe is
// there, but its references are not_spawn_safe unless the code is at the same addresses.  Objects
// are published until their Arena is destroyed.  Errors: bad_parcel (damaged), foreign_descriptor
// (one is not what it says: no seals, another size), unsupported (another version), address_taken
// (naming what is there), wrong_process_tree, invalid_argument (a name is in use), system_call.
// Thread-safe.
Expected<std::vector<Arena>> adopt_arenas(Parcel parcel, Names names = Names::taken_over);

// Over a connected Unix socket, stream or seqpacket, which nobody else uses at the same moment.
// What was sent can be received after this process has ended: the kernel keeps descriptors in
// flight.  A few bytes for 250 descriptors: does not block on an empty socket.  Errors:
// system_call.
Expected<void> send_parcel(int socket, const Parcel& parcel);

// Waits as the socket does.  Errors: bad_parcel (something else was sent, or the socket was closed
// in the middle), system_call (EPIPE: closed before one was sent; EAGAIN).
Expected<Parcel> receive_parcel(int socket);

}  // namespace cowshed
