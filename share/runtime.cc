#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cowshed/share/arena_handover.h>
#include <cowshed/share/forkserver_process.h>
#include <cowshed/share/runtime.h>
#include <cowshed/share/runtime_state.h>
#include <cowshed/share/worker_exception.h>
#include <cowshed/share/worker_process.h>

namespace cowshed {
namespace launch {
namespace {

std::atomic<const char*> name = nullptr;

bool is_our_socket() {
  int type = 0;
  int domain = 0;
  socklen_t size = sizeof type;
  return getsockopt(kSocketNumber, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
         getsockopt(kSocketNumber, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
         type == SOCK_SEQPACKET && domain == AF_UNIX;
}

[[noreturn]] void fail(const Error& error) {
  (void)send_message(kSocketNumber, MessageKind::failure, {},
                     internal::encode_failure(error.message));
  _exit(1);
}

[[noreturn]] void become_worker() {
  fcntl(kSocketNumber, F_SETFD, FD_CLOEXEC);
  for (;;) {
    auto message = receive_message(kSocketNumber);
    if (!message) {
      fail(message.error());
    }
    if (!*message) {
      _exit(1);  // the parent has ended
    }
    switch ((*message)->kind) {
      case MessageKind::adopt:
        if (auto adopted = adopt_for_ever((*message)->content); !adopted) {
          fail(adopted.error());
        }
        continue;
      case MessageKind::serve: serve(*std::move(*message), Descriptor(kSocketNumber));
      default:
        (void)send_message(kSocketNumber, MessageKind::begun);
        run_job(*std::move(*message), Descriptor(kSocketNumber));
    }
  }
}

}  // namespace

const char* program_name() { return name.load(); }

}  // namespace launch

Runtime::Runtime(int argc, char** argv) {
  launch::name = argc > 0 ? argv[0] : "";
  if (argc == 2 && std::strcmp(argv[1], launch::kWorkerArgument) == 0 && launch::is_our_socket()) {
    const char* slash = std::strrchr(argv[0], '/');
    prctl(PR_SET_NAME, slash != nullptr ? slash + 1 : argv[0]);  // it would be "exe"
    launch::become_worker();
  }
}

}  // namespace cowshed
