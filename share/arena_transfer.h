#pragma once

#include <cowshed/share/arena.h>
#include <cowshed/share/codec.h>

// Sends frozen arenas to processes that already run.  For example, a worker builds a large result
// in an arena and sends it to its parent.  The parent uses it in place, at the same address and
// without a copy, even after the worker has ended.
//
//   // in the worker                                 // in its parent
//   auto arena = Arena::create({.name = "result",
//                               .capacity = 4_GiB});
//   const auto* tree = build(arena.value());
//   auto ref = publish(tree);                        Ref<Tree> ref;
//   arena->freeze();
//   send_arena(socket, *arena);                      auto arena = receive_arena(socket);
//   write(socket, &*ref, sizeof *ref);               read(socket, &ref, sizeof ref);
//                                                    use(*ref);  // until `arena` is destroyed
//
// Both processes then have the arena.  Its memory is freed when the last handle is destroyed.
// Processes of one tree (forked from each other, or started by share/workers.h) use different
// addresses for their arenas, so that all of them can map each arena.
//
// A worker's function (share/workers.h) needs no socket.  It returns the arena and a reference:
//
//   std::pair<Arena, Ref<Tree>> build(const Worker& self) {
//     ...
//     return {std::move(arena), ref};  // the parent has the arena while it has the value
//   }
namespace cowshed {

// Sends the arena and its published objects over a connected Unix socket (AF_UNIX, stream or
// seqpacket), as descriptors (SCM_RIGHTS).  This process may end before the receiver receives them.
// Private writes to a lenient arena are not sent; call refreeze() first.  Thread-safe for different
// sockets.  Errors: arena_not_frozen, not_inherited, system_call (EPIPE, ...).
Expected<void> send_arena(int socket, const Arena& arena);

// Receives an arena, checks it and maps it, frozen, at the same address.  Publishes its objects
// under the same names, so that the sender's references work here.  Waits as the socket does.
// Objects that are not spawn_safe need both processes' code at the same addresses, as after a fork
// without exec.  Thread-safe for different sockets.
//
// Errors: bad_message (no arena, or from another version of Cowshed), foreign_descriptor (a wrong
// file), address_taken (the message names what is there; this process may have the arena already),
// wrong_process_tree, invalid_argument (a name is in use here), system_call (EPIPE: the other end
// was closed first; EAGAIN; ...).
Expected<Arena> receive_arena(int socket);

// Sends an arena as part of a worker's value, as send_arena() and receive_arena() do.  The receiver
// publishes the objects without names, so all workers may use the same names.  Throws
// std::runtime_error instead of returning an error.
template <>
struct Codec<Arena> {
  static void encode(Encoder& to, const Arena& arena);
  static Arena decode(Decoder& from);
};

}  // namespace cowshed
