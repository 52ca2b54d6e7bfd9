#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/uio.h>
#include <vector>

#include <cowshed/base/exception_text.h>
#include <cowshed/base/try.h>
#include <cowshed/share/wire/message.h>

namespace cowshed::launch {
namespace {

using internal::Content;

constexpr std::uint64_t kMessageMagic = 0x31'67736d'77'776f63;  // "cowwmsg1"
constexpr std::size_t kMostDescriptors = 250;                   // SCM_MAX_FD is 253

struct Header {
  std::uint64_t magic = kMessageMagic;
  MessageKind kind = {};
  std::uint32_t has_extra = 0;
  std::array<std::int64_t, 2> numbers = {};
  std::uint64_t inline_bytes = 0;
  std::uint64_t file_bytes = 0;
  std::uint32_t has_file = 0;
  std::uint32_t descriptors_to_come = 0;  // in this packet and the next ones
};

struct alignas(cmsghdr) ControlBuffer {
  std::array<char, CMSG_SPACE(kMostDescriptors * sizeof(int))> bytes;
};

// Returns false with an errno.
bool send_packet(int socket, const Header& header, std::string_view bytes,
                 std::span<const int> descriptors, int flags) noexcept {
  std::array<iovec, 2> parts = {iovec{const_cast<Header*>(&header), sizeof header},
                                iovec{const_cast<char*>(bytes.data()), bytes.size()}};
  msghdr message = {};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  ControlBuffer control;
  if (!descriptors.empty()) {
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  return TEMP_FAILURE_RETRY(sendmsg(socket, &message, flags | MSG_NOSIGNAL)) >= 0;
}

void take_descriptors(msghdr& message, std::vector<FileDescriptor>& to) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      to.emplace_back(fd);
    }
  }
}

tl::unexpected<Error> damaged() {
  return make_error(ErrorCode::bad_message,
                    "a worker's socket gave something that is no message of this version of "
                    "Cowshed; build both programs with the same");
}

// Returns false, with errno, if the other end is closed or no message is there.
Expected<bool> receive_packet(int socket, int flags, std::size_t most_inline, Header& header,
                              std::string& bytes, std::vector<FileDescriptor>& descriptors) {
  // All memory is there before the message is taken: none is lost if memory is short.
  bytes.resize(most_inline);
  descriptors.reserve(descriptors.size() + kMostDescriptors);
  std::array<iovec, 2> parts = {iovec{&header, sizeof header}, iovec{bytes.data(), bytes.size()}};
  ControlBuffer control;
  msghdr message = {};
  message.msg_iov = parts.data();
  message.msg_iovlen = most_inline == 0 ? 1 : 2;
  message.msg_control = &control;
  message.msg_controllen = sizeof control;
  ssize_t size = 0;
  const auto receive = [&] {
    size = TEMP_FAILURE_RETRY(recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC));
    return size >= 0;
  };
  // If the peer ended with a message unread, that comes first, once, before what it sent.
  if (!receive() && errno == ECONNRESET) receive();
  if (size == 0 && message.msg_controllen == 0 && (message.msg_flags & MSG_CTRUNC) == 0) {
    errno = EPIPE;
    return false;
  }
  if (size < 0 && (errno == EAGAIN || errno == ECONNRESET)) return false;
  if (size < 0) return system_error("recvmsg from a worker's socket", errno);
  take_descriptors(message, descriptors);
  if ((message.msg_flags & MSG_CTRUNC) != 0 && header.magic == kMessageMagic)
    return system_error("receiving what came with a worker's message", EMFILE);
  const auto received = static_cast<std::size_t>(size);
  if (received < sizeof header || header.magic != kMessageMagic ||
      header.inline_bytes != received - sizeof header || (message.msg_flags & MSG_TRUNC) != 0) {
    return damaged();
  }
  bytes.resize(header.inline_bytes);
  bytes.shrink_to_fit();
  return true;
}

}  // namespace

Expected<std::pair<FileDescriptor, FileDescriptor>> make_socket_pair() {
  std::array<int, 2> ends = {};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return system_error("socketpair for a worker", errno);
  std::pair sockets{FileDescriptor(ends[0]), FileDescriptor(ends[1])};
  if (!sockets.first || !sockets.second) return system_error("socketpair for a worker", errno);
  return sockets;
}

Expected<void> send_message(int socket, MessageKind kind, std::array<std::int64_t, 2> numbers,
                            const Content& content, int extra) {
  std::vector<int> descriptors;
  Header header;
  if (extra >= 0) {
    descriptors.push_back(extra);
    header.has_extra = 1;
  }
  if (content.file()) {
    descriptors.push_back(content.file().get());
    header.has_file = 1;
  }
  for (const FileDescriptor& descriptor : content.descriptors())
    descriptors.push_back(descriptor.get());
  header.kind = kind;
  header.numbers = numbers;
  header.file_bytes = content.file_bytes();
  std::string_view bytes = content.inline_bytes();
  for (std::span<const int> left = descriptors;;) {
    const auto now = left.first(std::min(left.size(), kMostDescriptors));
    header.inline_bytes = bytes.size();
    header.descriptors_to_come = static_cast<std::uint32_t>(left.size());
    if (!send_packet(socket, header, bytes, now, 0))
      return system_error("sendmsg to a worker's socket", errno);
    left = left.subspan(now.size());
    if (left.empty()) return {};
    bytes = {};
  }
}

int send_text(int socket, MessageKind kind, const std::string& text) {
  const Content content(internal::one_line(text), FileDescriptor(), 0, {});
  return send_message(socket, kind, {}, content) ? 1 : kUnheard;
}

void send_bytes(int socket, MessageKind kind, const void* data, std::size_t size) noexcept {
  Header header;
  header.kind = kind;
  header.inline_bytes = size;
  (void)send_packet(socket, header, {static_cast<const char*>(data), size}, {}, MSG_DONTWAIT);
}

Expected<std::optional<Message>> receive_message(int socket, int flags, std::size_t most_inline) {
  Header header;
  std::string bytes;
  std::vector<FileDescriptor> descriptors;
  TRY(const bool received, receive_packet(socket, flags, most_inline, header, bytes, descriptors));
  if (!received) return std::nullopt;
  const std::size_t all = header.descriptors_to_come;
  while (descriptors.size() < all) {
    Header next;
    std::string nothing;
    const std::size_t before = descriptors.size();
    TRY(const bool more, receive_packet(socket, flags & MSG_WAITALL, 0, next, nothing, descriptors));
    if (!more || next.kind != header.kind || descriptors.size() == before) return damaged();
  }
  if (descriptors.size() != all || all < header.has_extra + header.has_file) return damaged();
  Message message;
  message.kind = header.kind;
  message.numbers = header.numbers;
  auto next = descriptors.begin();
  if (header.has_extra != 0) message.extra = std::move(*next++);
  FileDescriptor file;
  if (header.has_file != 0) file = std::move(*next++);
  descriptors.erase(descriptors.begin(), next);
  try {
    message.content =
        Content(std::move(bytes), std::move(file), header.file_bytes, std::move(descriptors));
  } catch (const std::runtime_error&) {
    return damaged();
  }
  return message;
}

}  // namespace cowshed::launch
