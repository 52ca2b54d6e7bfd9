#include <cerrno>
#include <stdexcept>
#include <sys/socket.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/share/arena_transfer.h>
#include <cowshed/share/export/parcel.h>
#include <cowshed/share/jemalloc/outside_scope.h>
#include <cowshed/share/wire/message.h>

namespace cowshed {

using namespace internal;

namespace {

Expected<Arena> only_one(Expected<std::vector<Arena>> arenas) {
  if (!arenas) return tl::make_unexpected(std::move(arenas.error()));
  if (arenas->size() != 1) {
    return make_error(ErrorCode::bad_message, std::to_string(arenas->size()) +
                                                  " arenas were sent together; send one by one");
  }
  return std::move(arenas->front());
}

}  // namespace

// All bytes go into a memfd.  So every message has the same size, and a stream socket can separate
// them.
Expected<void> send_arena(int socket, const Arena& arena) {
  const OutsideScope outside;
  Encoder to = Encoder::in_file();
  TRY_VOID(pack_arena(arena, to));
  try {
    return launch::send_message(socket, launch::MessageKind::adopt, {}, to.finish());
  } catch (const std::runtime_error& failure) {
    return packing_error(failure);
  }
}

Expected<Arena> receive_arena(int socket) {
  const OutsideScope outside;
  TRY(auto message, launch::receive_message(socket, MSG_WAITALL, 0));
  if (!message) return system_error("receiving an arena: none is there", errno);
  if (message->kind != launch::MessageKind::adopt)
    return make_error(ErrorCode::bad_message, "no arena was sent; send it by send_arena()");
  return only_one(adopt_arenas(std::move(message->content)));
}

void Codec<Arena>::encode(Encoder& to, const Arena& arena) {
  if (const auto packed = pack_arena(arena, to); !packed)
    throw std::runtime_error(packed.error().message);
}

Arena Codec<Arena>::decode(Decoder& from) {
  auto arena = only_one(adopt_arenas(from, KeepNames::no));
  if (!arena) throw std::runtime_error(arena.error().message);
  return std::move(*arena);
}

}  // namespace cowshed
