#include <algorithm>
#include <csignal>

#include <cowshed/base/exception_text.h>
#include <cowshed/base/try.h>
#include <cowshed/share/export/parcel.h>
#include <cowshed/share/forkserver.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/workers/forkserver_client.h>
#include <cowshed/share/workers/launch.h>
#include <cowshed/share/workers/worker_main.h>

// What start() checks and encodes once, before it starts the first worker.
namespace cowshed::launch {
namespace {

bool is_variable(const std::string& text) {
  const std::size_t equals = text.find('=');
  return equals != std::string::npos && equals > 0;
}

// If SIGCHLD is ignored, the kernel discards the exit statuses of children.
bool sigchld_is_ignored() {
  struct sigaction action = {};
  sigaction(SIGCHLD, nullptr, &action);
  return action.sa_handler == SIG_IGN || (action.sa_flags & SA_NOCLDWAIT) != 0;
}

Expected<void> check_options(const WorkersOptions& options, const internal::WorkerTask& task) {
  const auto refuse = [](const char* why) { return make_error(ErrorCode::invalid_argument, why); };
  if (options.count < 1) return refuse(".count is at least 1");
  if (!std::ranges::all_of(options.environment, is_variable))
    return refuse(".environment has entries like NAME=value");
  if (!options.program.empty() && options.method != Start::spawn)
    return refuse(".program is for Start::spawn");
  if (sigchld_is_ignored()) {
    return refuse(
        "SIGCHLD is ignored in this process, so the kernel would throw their exit statuses away; "
        "give it SIG_DFL or a handler before start()");
  }
  if (options.method == Start::fork)
    return options.threads == Threads::allow ? Expected<void>() : check_threads("fork");
  if (task.function == nullptr) {
    return refuse(
        "only Start::fork can start this function; write start<function>(options, ...) with the "
        "name of a function");
  }
  if (program_name() == nullptr) return no_runtime_error();
  return {};
}

Expected<std::shared_ptr<ForkServerProcess>> server_of(const WorkersOptions& options) {
  if (options.server == nullptr) return ForkServerProcess::of_process();
  if (options.server->process() != nullptr) return options.server->process();
  return make_error(ErrorCode::invalid_argument, ".server is a ForkServer that was moved from");
}

}  // namespace

tl::unexpected<Error> no_runtime_error() {
  return make_error(ErrorCode::no_runtime,
                    "main() has no Runtime, which is to be its first line: `cowshed::Runtime "
                    "runtime(argc, argv);`");
}

Expected<void> prepare(Launch& launch) {
  WorkersOptions& options = launch.options;
  options.start_timeout = bounded(options.start_timeout);
  TRY_VOID(check_options(options, launch.task));
  if (options.method == Start::fork)  // else each worker would begin a process tree of its own
    return process_tree::start();
  try {
    Encoder to;
    encode_job(to, options, launch.task);
    launch.job = to.finish();
  } catch (...) {
    return make_error(ErrorCode::system_call,
                      "its arguments could not be sent: " + internal::text_of_current_exception());
  }
  switch (options.method) {
    case Start::fork: break;
    case Start::spawn: {
      TRY(launch.arenas, internal::pack_arenas());
      break;
    }
    case Start::forkserver: {
      TRY(launch.server, server_of(options));
      break;
    }
  }
  return {};
}

}  // namespace cowshed::launch
