#pragma once

#include <cowshed/share/arena.h>
#include <cowshed/share/codec.h>

// Sends frozen arenas from one running process to another.  A worker builds a large result in its
// own arena and sends that to its parent.  The parent uses the result in place, at the same address
// and without a copy, also after the worker has ended.
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
// Then both have the arena.  Its memory is freed when both have destroyed their handles.  Processes
// of one tree (forked from each other, or started by workers.h) choose different addresses for
// their arenas, so each arena can be mapped in all of them.
//
// A worker's function (workers.h) needs no socket.  It returns the arena with a reference into it.
//
//   std::pair<Arena, Ref<Tree>> build(const Worker& self) {
//     ...
//     return {std::move(arena), ref};  // the parent has the arena while it has the value
//   }
namespace cowshed {

// Sends the arena and its published objects over a connected Unix socket (AF_UNIX, stream or
// seqpacket), as descriptors (SCM_RIGHTS).  Does not wait for the receiver; this process may end
// before it receives.  Private writes to a lenient arena are not sent: call refreeze() first.
// Thread-safe, but not on one socket.  Errors: arena_not_frozen, not_inherited, system_call (EPIPE,
// ...).
Expected<void> send_arena(int socket, const Arena& arena);

// Receives an arena, checks it, and maps it: frozen, at the same address, with its objects
// published under the same names.  From then on the sender's Refs to them are valid here.  Objects
// that are not spawn_safe can be used only if one process was forked from the other, without exec.
// Waits if the socket does.  Thread-safe, but not on one socket.
//
// Errors: bad_message (something else was sent, or by another version of Cowshed),
// foreign_descriptor (a descriptor is not what it should be), address_taken (the message says by
// what; also if this process has the arena already), wrong_process_tree, invalid_argument (a name
// is in use here), system_call (EPIPE if the sender closed the socket, EAGAIN, ...).
Expected<Arena> receive_arena(int socket);

// Sends an arena in a worker's value, or in another message with descriptors, as send_arena() does.
// The names of its objects stay in the sender, so all workers may use the same names.  Throws a
// std::runtime_error where send_arena() and receive_arena() return an error.
template <>
struct Codec<Arena> {
  static void encode(Encoder& to, const Arena& arena);
  static Arena decode(Decoder& from);
};

}  // namespace cowshed
