#include <csignal>
#include <cstring>
#include <filesystem>
#include <sys/socket.h>

#include <cowshed/share/workers/forkserver_client.h>
#include <cowshed/share/workers/launch.h>

namespace cowshed::launch {
namespace {

std::string describe_signal(const Launch& launch, const Child& child) {
  std::string text =
      " died of signal " + std::to_string(child.signal) + " (" + strsignal(child.signal) + ")";
  if (child.signal == SIGKILL && launch.setup.die_with_parent &&
      !std::filesystem::exists("/proc/self/task/" + std::to_string(launch.starter))) {
    text +=
        "; the thread that started it has ended, and with it go its workers: see "
        "WorkersOptions::die_with_parent";
  }
  return text;
}

}  // namespace

void Child::set_end(int code, int status) {
  exit_code = code == CLD_EXITED ? status : -1;
  signal = code == CLD_EXITED ? 0 : status;
}

void Child::read_messages() {
  for (;;) {
    if (place) {
      if (!is_ready(socket.get())) return;
      place = FileDescriptor();
    }
    auto received = receive_message(socket.get(), MSG_DONTWAIT);
    if (!received || !*received) {
      unread = received ? unread : received.error().message;
      return;
    }
    Message& message = **received;
    const std::string& bytes = message.content.inline_bytes();
    switch (message.kind) {
      case MessageKind::begun: begun = true; break;
      case MessageKind::started:
        pid = static_cast<pid_t>(message.numbers[0]);
        start_ns = static_cast<std::uint64_t>(message.numbers[1]);
        pidfd = std::move(message.extra);
        break;
      case MessageKind::refused: refused = bytes; break;
      case MessageKind::result:
        exit_code = static_cast<int>(message.numbers[0]);  // if nobody can tell more
        value = std::move(message.content);
        break;
      case MessageKind::exited:
        reported = true;
        set_end(static_cast<int>(message.numbers[0]), static_cast<int>(message.numbers[1]));
        break;
      case MessageKind::failure:
        begun = true;
        failure = bytes;
        break;
      case MessageKind::stray_write:
        if (bytes.size() == sizeof(StrayWrite))
          std::memcpy(&stray_write.emplace(), bytes.data(), bytes.size());
        break;
      default: break;
    }
  }
}

std::string describe_end(const Launch& launch, int rank, const Child& child, bool with_value) {
  const std::string its_name =
      launch.name + " " + std::to_string(rank) + " (pid " + std::to_string(child.pid) + ")";
  const std::string no_runtime =
      " before it came to its function: main() of its program has `cowshed::Runtime "
      "runtime(argc, argv);` as its first line";
  if (child.timed_out) {
    return its_name + " was killed after " + std::to_string(launch.start_timeout.count()) +
           " ms (WorkersOptions::start_timeout)" + no_runtime;
  }
  if (child.stray_write) return its_name + " died: " + to_string(*child.stray_write);
  if (child.failure) return its_name + ": " + *child.failure;
  if (child.signal != 0) return its_name + describe_signal(launch, child);
  if (!child.unread.empty()) return its_name + ": " + child.unread;
  if (launch.method == Start::forkserver && !child.reported && !child.value)
    return its_name + " ended, nobody knows how: its forkserver " + launch.server->how_it_ended();
  if (launch.method == Start::spawn && !child.begun)
    return its_name + " exited with " + std::to_string(child.exit_code) + no_runtime;
  if (child.exit_code != 0) return its_name + " exited with " + std::to_string(child.exit_code);
  if (with_value && !child.value)
    return its_name + " ended without a value: its function did not return";
  return "";
}

}  // namespace cowshed::launch
