#pragma once

#include <cowshed/share/arena.h>
#include <cowshed/share/codec.h>

// Frozen arenas between processes that run: a worker builds a large result in an arena of its own
// and hands it to whoever asked for it, who uses it in place, at the same address and without a
// copy, also after the worker has ended.
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
// Both have the arena then; each gives its own handle up when it likes, and the memory is free when
// the last did.  Processes of one tree (forked from each other, or started as workers.h does)
// choose different addresses for their arenas, so that every one can be mapped everywhere.
//
// A worker's function (workers.h) needs no socket: it returns the arena, with what to look at in
// it.
//
//   std::pair<Arena, Ref<Tree>> build(const Worker& self) {
//     ...
//     return {std::move(arena), ref};  // the parent has the arena while it has the value
//   }
namespace cowshed {

// Sends the arena and what is published in it over a connected Unix socket (AF_UNIX, stream or
// seqpacket), as descriptors (SCM_RIGHTS).  The receiver need not be there yet, and this process
// may end before it is.  What this process wrote privately to a lenient arena is not sent:
// refreeze() first.  Thread-safe, but one at a time on a socket.  Errors: arena_not_frozen,
// not_inherited, system_call (EPIPE, ...).
Expected<void> send_arena(int socket, const Arena& arena);

// Waits for one, as the socket does, checks it, and maps it: frozen, at the same address, its
// objects published under the same names.  A Ref of the sender's is good from here.  What is not
// spawn_safe is to be had only if both processes have their code at the same addresses: forked from
// each other, not exec'd.  Thread-safe, but one at a time on a socket.  Errors: bad_message
// (something else was sent, or by another version of Cowshed), foreign_descriptor (not what it
// should be), address_taken (naming what is there, as where this process has the arena already),
// wrong_process_tree, invalid_argument (a name is in use here), system_call (EPIPE: the other
// side was closed before it sent one; EAGAIN; ...).
Expected<Arena> receive_arena(int socket);

// In a worker's value, and wherever a Codec with descriptors goes: as send_arena() and
// receive_arena(), but for the names of its objects, which stay in the sender: all workers may use
// the same.  Both throw a std::runtime_error where those have an error.
template <>
struct Codec<Arena> {
  static void encode(Encoder& to, const Arena& arena);
  static Arena decode(Decoder& from);
};

}  // namespace cowshed
