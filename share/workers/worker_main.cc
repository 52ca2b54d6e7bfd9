#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cxxabi.h>
#include <exception>
#include <iostream>
#include <sys/prctl.h>
#include <system_error>
#include <unistd.h>

#include <cowshed/base/exception_text.h>
#include <cowshed/share/channel/segment.h>
#include <cowshed/share/os/fork_state.h>
#include <cowshed/share/stray_write.h>
#include <cowshed/share/workers/worker_main.h>

namespace cowshed::launch {
namespace {

// In a worker; a process that it forks in turn has them too, and must not report as the worker.
COWSHED_FORK_STATE int own_socket = -1;
COWSHED_FORK_STATE pid_t own_pid = 0;
StrayWrite stray_write;

void watch_stray_writes() {
  internal::set_stray_write_sink(&stray_write, []() noexcept {
    if (getpid() == own_pid)
      send_bytes(own_socket, MessageKind::stray_write, &stray_write, sizeof stray_write);
  });
}

void send_failure(const std::string& text) {
  if (getpid() == own_pid) send_text(own_socket, MessageKind::failure, text);
}

// The exit code.  Of any callable: what a Body is made of may be too much for it to hold without
// allocating, which copies pages of the heap for each worker.
template <class Function>
int run_body(const Function& body) {
  try {
    Encoder value;
    const int code = body(value);
    flush_streams();
    if (getpid() != own_pid) return code;  // returned in what the worker forked
    internal::give_back_hands();
    const internal::Content content = value.finish();
    const auto sent = send_message(own_socket, MessageKind::result, {code}, content);
    if (sent || (content.inline_bytes().empty() && !content.file())) return code;
    throw std::runtime_error("its value could not be sent: " + sent.error().message);
  } catch (const abi::__forced_unwind&) {
    // Must not be swallowed, nor go on into the frames of the parent: the worker ends here.
    send_failure("ended by pthread_exit()");
    flush_streams();
    _exit(1);
  } catch (...) {
    send_failure(internal::text_of_current_exception());
  }
  flush_streams();
  return 1;
}

}  // namespace

void encode(Encoder& to, const Setup& setup) {
  to.put(setup.parent).put(setup.die_with_parent).put(setup.environment);
}

Setup decode_setup(Decoder& from) {
  Setup setup;
  setup.parent = from.take<pid_t>();
  setup.die_with_parent = from.take<bool>();
  setup.environment = from.take<std::vector<std::string>>();
  return setup;
}

void flush_streams() {
  // They may not have been made yet: this may be called by the constructor of a static object.
  const std::ios_base::Init streams;
  std::cout.flush();
  std::cerr.flush();
  std::clog.flush();
  (void)std::fflush(stdout);
  (void)std::fflush(stderr);
}

void run_worker(const Worker& self, FileDescriptor socket, const Setup& setup, const Body& body) {
  int no_signal_error = 0;
  if (setup.die_with_parent) {
    no_signal_error = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 ? 0 : errno;
    if (getppid() != setup.parent) _exit(1);  // it ended before the call above
  }
  own_socket = socket.get();
  own_pid = getpid();
  watch_stray_writes();
  const int code = run_body([&](Encoder& value) {
    if (no_signal_error != 0) {
      throw std::system_error(no_signal_error, std::generic_category(),
                              "prctl(PR_SET_PDEATHSIG), for WorkersOptions::die_with_parent");
    }
    for (const std::string& variable : setup.environment) {
      const std::size_t equals = variable.find('=');
      setenv(variable.substr(0, equals).c_str(), variable.substr(equals + 1).c_str(), 1);
    }
    return body(self, value);
  });
  _exit(code);
}

void run_job(Message message, FileDescriptor socket, pid_t parent) {
  const int reply = socket.get();
  try {
    Decoder from(std::move(message.content));
    Setup setup = decode_setup(from);
    setup.parent = parent != 0 ? parent : setup.parent;
    const Worker self = {static_cast<int>(message.numbers[0]),
                         static_cast<int>(message.numbers[1])};
    run_worker(self, std::move(socket), setup, [&](const Worker&, Encoder& value) {
      const auto name = from.take<std::string>();
      const auto* function =
          internal::find_worker_function(name, from.take<std::uint64_t>()).value();
      return function->call(self, from, value);
    });
  } catch (...) {
    send_text(reply, MessageKind::failure, internal::text_of_current_exception());
  }
  _exit(1);
}

}  // namespace cowshed::launch
