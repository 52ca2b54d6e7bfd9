#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sys/prctl.h>
#include <system_error>
#include <unistd.h>

#include <cowshed/base/exception_text.h>
#include <cowshed/share/channel/segment.h>
#include <cowshed/share/os/fork_state.h>
#include <cowshed/share/stray_write.h>
#include <cowshed/share/workers/worker_main.h>

// Running a function as a worker, and telling the parent how that ends.
namespace cowshed::launch {
namespace {

// This worker's.  A process that the worker forks inherits them, and must not report as the worker.
COWSHED_FORK_STATE int own_socket = -1;
COWSHED_FORK_STATE pid_t own_pid = 0;
StrayWrite stray_write;

void send_stray_write() noexcept {
  if (getpid() == own_pid)
    send_bytes(own_socket, MessageKind::stray_write, &stray_write, sizeof stray_write);
}

// Returns the exit code.
int send_failure(const std::string& text) {
  return getpid() == own_pid ? send_text(own_socket, MessageKind::failure, text) : 1;
}

// Returns the exit code.  `signal_error`: why the kernel will not kill the worker with its parent.
int run_body(const Worker& self, const WorkersOptions& options,
             const internal::WorkerTask::Body& body, int signal_error) {
  int failed = 1;
  try {
    if (signal_error != 0) {
      throw std::system_error(signal_error, std::generic_category(),
                              "prctl(PR_SET_PDEATHSIG), for WorkersOptions::die_with_parent");
    }
    for (const std::string& variable : options.environment) {
      const std::size_t equals = variable.find('=');
      if (setenv(variable.substr(0, equals).c_str(), variable.substr(equals + 1).c_str(), 1) != 0)
        throw std::system_error(errno, std::generic_category(), "setenv of " + variable);
    }
    Encoder value;
    const int code = body(self, value);
    flush_streams();
    if (getpid() != own_pid) return code;  // in a process that the worker forked
    internal::give_back_hands();
    const internal::Content content = value.finish();
    const auto sent = send_message(own_socket, MessageKind::result, {code}, content);
    if (sent || (content.inline_bytes().empty() && !content.file())) return code;
    throw std::runtime_error("its value could not be sent: " + sent.error().message);
  } catch (const internal::ForcedUnwind&) {
    // Must not be swallowed, and must not unwind the parent's frames: the worker ends here.
    failed = send_failure("ended by pthread_exit()");
    flush_streams();
    _exit(failed);
  } catch (...) {
    failed = send_failure(internal::text_of_current_exception());
  }
  flush_streams();
  return failed;
}

}  // namespace

void flush_streams() {
  // Makes them if this is called by the constructor of a static object.
  const std::ios_base::Init streams;
  std::cout.flush();
  std::cerr.flush();
  std::clog.flush();
  (void)std::fflush(stdout);
  (void)std::fflush(stderr);
}

void run_worker(const Worker& self, FileDescriptor socket, pid_t parent,
                const WorkersOptions& options, const internal::WorkerTask::Body& body) {
  int signal_error = 0;
  if (options.die_with_parent) {
    signal_error = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 ? 0 : errno;
    if (getppid() != parent) _exit(1);  // it ended before the call above
  }
  own_socket = socket.get();
  own_pid = getpid();
  internal::set_stray_write_sink(&stray_write, &send_stray_write);
  _exit(run_body(self, options, body, signal_error));
}

void encode_job(Encoder& to, const WorkersOptions& options, const internal::WorkerTask& task) {
  const bool has_environment = options.method == Start::spawn;  // since it was executed
  to.put(getpid()).put(options.die_with_parent);
  to.put(has_environment ? std::vector<std::string>() : options.environment);
  put_function(to, *task.function);
  task.arguments(to);
}

void run_job(Message message, FileDescriptor socket, pid_t forkserver) {
  const int reply = socket.get();
  try {
    Decoder from(std::move(message.content));
    const auto starter = from.take<pid_t>();
    WorkersOptions options;
    options.die_with_parent = from.take<bool>();
    options.environment = from.take<std::vector<std::string>>();
    const Worker self = {static_cast<int>(message.numbers[0]),
                         static_cast<int>(message.numbers[1])};
    const auto call = [&](const Worker&, Encoder& value) {
      return take_function(from).call(self, from, value);
    };
    run_worker(self, std::move(socket), forkserver != 0 ? forkserver : starter, options, call);
  } catch (...) {
    _exit(send_text(reply, MessageKind::failure, internal::text_of_current_exception()));
  }
}

void put_function(Encoder& to, const internal::WorkerFunction& function) {
  to.put(std::string(function.name)).put(function.layout);
}

const internal::WorkerFunction& take_function(Decoder& from) {
  const auto name = from.take<std::string>();
  return *internal::find_worker_function(name, from.take<std::uint64_t>()).value();
}

}  // namespace cowshed::launch
