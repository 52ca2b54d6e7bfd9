#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cxxabi.h>
#include <exception>
#include <fcntl.h>
#include <iostream>
#include <sched.h>
#include <sys/prctl.h>
#include <system_error>
#include <unistd.h>

#include <cowshed/share/channel_segment.h>
#include <cowshed/share/fork_state.h>
#include <cowshed/share/stray_write.h>
#include <cowshed/share/worker_exception.h>
#include <cowshed/share/worker_process.h>

namespace cowshed::launch {
namespace {

// In a worker; a process that it forks in turn has them too, and must not report as the worker.
COWSHED_FORK_STATE int own_socket = -1;
COWSHED_FORK_STATE pid_t own_pid = 0;
StrayWrite stray_write;

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// With a position of its own.
Descriptor open_again(const Descriptor& file) {
  const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  Descriptor again(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!again) {
    fail("opening the file for standard input");
  }
  return again;
}

void apply(const Setup& setup, const std::vector<Descriptor>& streams, const Worker& self) {
  auto next = streams.begin();
  for (int stream = 0; stream < 3; ++stream) {
    if (!setup.redirected[static_cast<std::size_t>(stream)]) {
      continue;
    }
    const Descriptor& given = *next++;
    const bool is_own = stream == STDIN_FILENO && setup.input_is_file;
    if (dup2(is_own ? open_again(given).get() : given.get(), stream) < 0) {
      fail("dup2 of a standard stream");
    }
  }
  if (!setup.directory.empty() && chdir(setup.directory.c_str()) != 0) {
    fail(setup.directory);
  }
  for (const std::string& variable : setup.environment) {
    const std::size_t equals = variable.find('=');
    setenv(variable.substr(0, equals).c_str(), variable.substr(equals + 1).c_str(), 1);
  }
  if (!setup.cpus.empty()) {
    const int cpu = setup.cpus[static_cast<std::size_t>(self.rank) % setup.cpus.size()];
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(cpu), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) {
      fail("sched_setaffinity to CPU " + std::to_string(cpu));
    }
  }
}

void watch_stray_writes() {
  internal::set_stray_write_sink(&stray_write, []() noexcept {
    if (getpid() == own_pid) {
      send_bytes(own_socket, MessageKind::stray_write, &stray_write, sizeof stray_write);
    }
  });
}

void send_failure(const std::string& text) {
  if (getpid() == own_pid) {
    send_text(own_socket, MessageKind::failure, text);
  }
}

// The exit code.  Of any callable: what a Body is made of may be too much for it to hold without
// allocating, which copies pages of the heap for each worker.
template <class Function>
int run_body(const Function& body, const Worker& self) {
  try {
    Encoder value;
    const int code = body(self, value);
    flush_streams();
    if (getpid() != own_pid) {
      return code;  // returned in what the worker forked
    }
    internal::give_back_hands();
    const internal::Content content = value.finish();
    const auto sent = send_message(own_socket, MessageKind::result, {code}, content);
    if (sent || (content.inline_bytes().empty() && !content.file())) {
      return code;
    }
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
  to.put(setup.parent)
      .put(setup.die_with_parent)
      .put(setup.cpus)
      .put(setup.environment)
      .put(setup.directory);
  to.put(setup.redirected).put(setup.input_is_file);
}

Setup decode_setup(Decoder& from) {
  Setup setup;
  setup.parent = from.take<pid_t>();
  setup.die_with_parent = from.take<bool>();
  setup.cpus = from.take<std::vector<int>>();
  setup.environment = from.take<std::vector<std::string>>();
  setup.directory = from.take<std::string>();
  setup.redirected = from.take<std::array<bool, 3>>();
  setup.input_is_file = from.take<bool>();
  return setup;
}

std::vector<Descriptor> Setup::take_streams(Decoder& from) const {
  std::vector<Descriptor> streams;
  for (const bool given : redirected) {
    if (given) {
      streams.emplace_back(from.take_descriptor());
    }
  }
  return streams;
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

void run_worker(Assignment assignment, const Setup& setup, const Body& body) {
  int no_signal_error = 0;
  if (setup.die_with_parent) {
    no_signal_error = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 ? 0 : errno;
    if (getppid() != setup.parent) {
      _exit(1);  // it ended before the call above
    }
  }
  own_socket = assignment.socket.get();
  own_pid = getpid();
  watch_stray_writes();
  const int code = run_body(
      [&](const Worker& self, Encoder& value) {
        if (no_signal_error != 0) {
          errno = no_signal_error;
          fail("prctl(PR_SET_PDEATHSIG), for WorkersOptions::die_with_parent");
        }
        apply(setup, assignment.streams, self);
        assignment.streams.clear();
        return body(self, value);
      },
      assignment.self);
  _exit(code);
}

void run_job(Message message, Descriptor socket, pid_t parent) {
  Assignment assignment;
  assignment.self = {static_cast<int>(message.numbers[0]), static_cast<int>(message.numbers[1])};
  const int reply = socket.get();
  assignment.socket = std::move(socket);
  try {
    Decoder from(std::move(message.content));
    Setup setup = decode_setup(from);
    setup.parent = parent != 0 ? parent : setup.parent;
    assignment.streams = setup.take_streams(from);
    run_worker(std::move(assignment), setup, [&](const Worker& self, Encoder& value) {
      const auto name = from.take<std::string>();
      const auto function = internal::find_worker_function(name, from.take<std::uint64_t>());
      if (!function) {
        throw std::runtime_error(function.error().message);
      }
      return (*function)->call(self, from, value);
    });
  } catch (...) {
    send_text(reply, MessageKind::failure, internal::text_of_current_exception());
  }
  _exit(1);
}

}  // namespace cowshed::launch
