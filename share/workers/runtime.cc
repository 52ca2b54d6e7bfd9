#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cowshed/share/export/parcel.h>
#include <cowshed/share/workers.h>
#include <cowshed/share/workers/forkserver_client.h>
#include <cowshed/share/workers/launch.h>
#include <cowshed/share/workers/worker_main.h>

// The Runtime in main(): what a program does that was executed as a worker or a forkserver.
namespace cowshed {
namespace launch {
namespace {

std::atomic<const char*> started_as = nullptr;

[[noreturn]] void fail(const Error& error) {
  _exit(send_text(kSocketNumber, MessageKind::failure, error.message));
}

// Returns false if the descriptor is no socket.
template <class T>
bool get_socket_option(int option, T& value) {
  socklen_t size = sizeof value;
  if (getsockopt(kSocketNumber, SOL_SOCKET, option, &value, &size) == 0) return true;
  // A worker that a sandbox keeps from seeing what it is must not run main().
  if (errno != EBADF && errno != ENOTSOCK) fail(system_error("getsockopt", errno).value());
  return false;
}

// The process that made the socket which start() passed on.  Nothing if the descriptor is something
// else: only a Unix packet socket has a peer with an effective user and group.
std::optional<ucred> peer_of_our_socket() {
  int type = 0;
  ucred peer = {};
  if (!get_socket_option(SO_TYPE, type) || type != SOCK_SEQPACKET ||
      !get_socket_option(SO_PEERCRED, peer) || peer.uid == static_cast<uid_t>(-1)) {
    return std::nullopt;
  }
  return peer;
}

// False if this program has rights that its parent lacks: the parent would choose what it does.
bool has_our_rights(const ucred& peer) {
  return getauxval(AT_SECURE) == 0 && peer.uid == getauxval(AT_EUID) &&
         peer.gid == getauxval(AT_EGID);
}

[[noreturn]] void become_worker(const ucred& parent) {
  fcntl(kSocketNumber, F_SETFD, FD_CLOEXEC);
  if (!has_our_rights(parent)) {
    fail({ErrorCode::permission_denied, 0,
          "this program has other rights than its starter (set-user-ID, set-group-ID or file "
          "capabilities), so it refuses to be a worker; use Start::fork"});
  }
  for (;;) {
    auto message = receive_message(kSocketNumber);
    if (!message) fail(message.error());
    if (!*message) _exit(1);  // the parent has ended
    switch ((*message)->kind) {
      case MessageKind::adopt:
        if (auto adopted = internal::adopt_for_ever(std::move((*message)->content)); !adopted)
          fail(adopted.error());
        continue;
      case MessageKind::serve: serve(*std::move(*message), FileDescriptor(kSocketNumber));
      default:
        if (!send_message(kSocketNumber, MessageKind::begun)) _exit(kUnheard);
        run_job(*std::move(*message), FileDescriptor(kSocketNumber));
    }
  }
}

}  // namespace

const char* program_name() { return started_as.load(); }

}  // namespace launch

Runtime::Runtime(int argc, char** argv) {
  launch::started_as = argc > 0 ? argv[0] : "";
  if (argc != 2 || std::strcmp(argv[1], launch::kWorkerArgument) != 0) return;
  if (const auto parent = launch::peer_of_our_socket()) {
    const char* slash = std::strrchr(argv[0], '/');
    prctl(PR_SET_NAME, slash != nullptr ? slash + 1 : argv[0]);  // else it is "exe"
    launch::become_worker(*parent);
  }
}

}  // namespace cowshed
