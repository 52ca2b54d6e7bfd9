#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/uio.h>
#include <utility>

#include <cowshed/share/arena_transfer.h>
#include <cowshed/share/malloc_route.h>
#include <cowshed/share/parcel.h>

namespace cowshed {
namespace {

// What comes with up to kMost descriptors: the kernel takes no more in one message (SCM_MAX_FD).
struct Message {
  std::array<char, 8> magic;
  std::uint32_t total;   // descriptors of the parcel
  std::uint32_t before;  // of them, sent before this message
};
constexpr std::array<char, 8> kPassMagic = {'C', 'o', 'w', 'P', 'a', 's', 's', '1'};
constexpr std::size_t kMost = 250;
constexpr std::uint32_t kMostOfAll = 1U << 20U;

struct Buffer {
  Message message{};
  iovec part{&message, sizeof message};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMost * sizeof(int))> control{};
  msghdr header{};

  Buffer() {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

template <class Call>
ssize_t retry(Call call) {
  ssize_t result = call();
  while (result < 0 && errno == EINTR) {
    result = call();
  }
  return result;
}

void take_descriptors(Buffer& buffer, std::vector<Descriptor>& descriptors) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&buffer.header); part != nullptr;
       part = CMSG_NXTHDR(&buffer.header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    for (std::size_t at = 0; at + sizeof(int) <= part->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
      descriptors.emplace_back(fd);
    }
  }
}

tl::unexpected<Error> bad(const std::string& what) {
  return make_error(ErrorCode::bad_parcel, "receiving an arena: " + what);
}

Expected<Arena> adopt_one(Parcel parcel, Names names) {
  auto arenas = adopt_arenas(std::move(parcel), names);
  if (!arenas) {
    return tl::make_unexpected(std::move(arenas.error()));
  }
  if (arenas->size() != 1) {
    return bad(std::to_string(arenas->size()) + " were sent together");
  }
  return std::move(arenas->front());
}

}  // namespace

Expected<void> send_parcel(int socket, const Parcel& parcel) {
  const auto total = parcel.descriptors.size();
  for (std::size_t before = 0; before < total;) {
    const std::size_t count = std::min(kMost, total - before);
    Buffer buffer;
    buffer.message = {kPassMagic, static_cast<std::uint32_t>(total),
                      static_cast<std::uint32_t>(before)};
    buffer.header.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* part = CMSG_FIRSTHDR(&buffer.header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (std::size_t i = 0; i < count; ++i) {
      const int fd = parcel.descriptors[before + i].get();
      std::memcpy(CMSG_DATA(part) + i * sizeof fd, &fd, sizeof fd);
    }
    if (retry([&] { return sendmsg(socket, &buffer.header, MSG_NOSIGNAL); }) < 0) {
      return system_error("sending an arena", errno);
    }
    before += count;
  }
  return {};
}

Expected<Parcel> receive_parcel(int socket) {
  Parcel parcel;
  std::uint32_t total = 1;
  while (parcel.descriptors.size() < total) {
    Buffer buffer;
    const auto before = parcel.descriptors.size();
    const ssize_t got =
        retry([&] { return recvmsg(socket, &buffer.header, MSG_CMSG_CLOEXEC | MSG_WAITALL); });
    if (got < 0) {
      return system_error("receiving an arena", errno);
    }
    take_descriptors(buffer, parcel.descriptors);
    if (got == 0 && before == 0) {
      return system_error("receiving an arena: the other side closed the socket and sent none",
                          EPIPE);
    }
    if ((buffer.header.msg_flags & MSG_CTRUNC) != 0) {
      return system_error("receiving an arena: its descriptors were lost; raise RLIMIT_NOFILE",
                          EMFILE);
    }
    const Message& message = buffer.message;
    if (got == 0) {
      return bad("the other side closed the socket before it was complete");
    }
    if (got != sizeof message || message.magic != kPassMagic) {
      return bad("something else was sent; send arenas by send_arena()");
    }
    total = before == 0 ? std::min(message.total, kMostOfAll) : total;
    if (message.total != total || message.before != before ||
        parcel.descriptors.size() != std::min<std::size_t>(before + kMost, total)) {
      return bad("parts are missing; one process at a time may send, and one receive");
    }
  }
  return parcel;
}

Expected<void> send_arena(int socket, const Arena& arena) {
  const OutsideScope outside;
  auto parcel = pack_arena(arena);
  if (!parcel) {
    return tl::make_unexpected(std::move(parcel.error()));
  }
  return send_parcel(socket, *parcel);
}

Expected<Arena> receive_arena(int socket) {
  const OutsideScope outside;
  auto parcel = receive_parcel(socket);
  if (!parcel) {
    return tl::make_unexpected(std::move(parcel.error()));
  }
  return adopt_one(std::move(*parcel), Names::taken_over);
}

void Codec<Arena>::encode(Encoder& to, const Arena& arena) {
  const auto parcel = pack_arena(arena);
  if (!parcel) {
    throw std::runtime_error(parcel.error().message);
  }
  to.put(std::uint64_t{parcel->descriptors.size()});
  for (const Descriptor& descriptor : parcel->descriptors) {
    to.put_descriptor(descriptor.get());
  }
}

Arena Codec<Arena>::decode(Decoder& from) {
  Parcel parcel;
  for (auto left = from.take<std::uint64_t>(); left > 0; --left) {
    parcel.descriptors.emplace_back(from.take_descriptor());
  }
  auto arena = adopt_one(std::move(parcel), Names::left_behind);
  if (!arena) {
    throw std::runtime_error(arena.error().message);
  }
  return std::move(*arena);
}

}  // namespace cowshed
