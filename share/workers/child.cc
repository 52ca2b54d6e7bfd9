#include <csignal>
#include <cstring>
#include <filesystem>
#include <sys/socket.h>

#include <cowshed/share/workers/forkserver_client.h>
#include <cowshed/share/workers/launch.h>

// What a worker has told its parent, and the words for how it ended.
namespace cowshed::launch {
namespace {

std::string describe_signal(const WorkersOptions& options, const Child& child) {
  const int signal = child.exit.signal;
  std::string text = " died of signal " + std::to_string(signal) + " (" + strsignal(signal) + ")";
  if (signal == SIGKILL && options.die_with_parent && options.method != Start::forkserver &&
      !std::filesystem::exists("/proc/self/task/" + std::to_string(child.starter))) {
    text +=
        "; the thread that started it has ended, and with it go its workers: see "
        "WorkersOptions::die_with_parent";
  }
  return text;
}

}  // namespace

void Child::set_end(int code, int status) {
  exit.exit_code = code == CLD_EXITED ? status : -1;
  exit.signal = code == CLD_EXITED ? 0 : status;
}

void Child::read_messages() {
  for (;;) {
    if (spare) {
      if (!internal::is_ready(socket.get())) return;
      spare = FileDescriptor();
    }
    auto received = receive_message(socket.get(), MSG_DONTWAIT);
    if (!received || !*received) {
      receive_error = received ? receive_error : received.error().message;
      return;
    }
    Message& message = **received;
    const std::string& bytes = message.content.inline_bytes();
    switch (message.kind) {
      case MessageKind::begun: begun = true; break;
      case MessageKind::started:
        exit.pid = static_cast<pid_t>(message.numbers[0]);
        exit.start_ns = static_cast<std::uint64_t>(message.numbers[1]);
        pidfd = std::move(message.extra);
        break;
      case MessageKind::refused: refused = bytes; break;
      case MessageKind::result:
        exit.exit_code = static_cast<int>(message.numbers[0]);  // until set_end() knows better
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

std::string describe_exit_code(int code) {
  const std::string text = "exited with " + std::to_string(code);
  return code != kUnheard ? text
                          : text +
                                ", as one does that cannot send to its starter: did it close "
                                "descriptors that it had not opened, or does a sandbox refuse "
                                "sendmsg(2)?";
}

std::string describe_end(const Launch& launch, const Child& child, bool must_return) {
  const WorkersOptions& options = launch.options;
  const WorkerExit& exit = child.exit;
  const std::string worker =
      options.name + " " + std::to_string(exit.rank) + " (pid " + std::to_string(exit.pid) + ")";
  const std::string no_runtime =
      " before it came to its function: main() of its program has `cowshed::Runtime "
      "runtime(argc, argv);` as its first line";
  if (child.timed_out) {
    return worker + " was killed after " + std::to_string(options.start_timeout.count()) +
           " ms (WorkersOptions::start_timeout)" + no_runtime;
  }
  if (child.stray_write) return worker + " died: " + to_string(*child.stray_write);
  if (child.failure) return worker + ": " + *child.failure;
  if (exit.signal != 0) return worker + describe_signal(options, child);
  if (!child.receive_error.empty()) return worker + ": " + child.receive_error;
  if (options.method == Start::forkserver && !child.reported && !child.value) {
    return worker + " ended, nobody knows how: its forkserver " +
           (launch.server->is_ending(child.hung_up) ? launch.server->how_it_ended()
            : child.hung_up                         ? "could not report it"
                                                    : "is stopped");
  }
  if (options.method == Start::spawn && !child.begun && exit.exit_code != kUnheard)
    return worker + " " + describe_exit_code(exit.exit_code) + no_runtime;
  if (exit.exit_code != 0) return worker + " " + describe_exit_code(exit.exit_code);
  if (must_return && !child.value)
    return worker + " ended without a value: its function did not return";
  return "";
}

}  // namespace cowshed::launch
