#include <algorithm>
#include <csignal>

#include <cowshed/base/exception_text.h>
#include <cowshed/base/try.h>
#include <cowshed/share/export/parcel.h>
#include <cowshed/share/forkserver.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/workers/forkserver_client.h>
#include <cowshed/share/workers/launch.h>

namespace cowshed::launch {
namespace {

Expected<void> check_options(const WorkersOptions& options, const internal::WorkerJob& job) {
  const auto refuse = [&](const char* why) { return make_error(ErrorCode::invalid_argument, why); };
  if (options.count < 1) return refuse(".count is at least 1");
  if (std::any_of(options.environment.begin(), options.environment.end(),
                  [](const std::string& variable) {
                    return variable.find('=') == std::string::npos || variable[0] == '=';
                  })) {
    return refuse(".environment has entries like NAME=value");
  }
  if (!options.program.empty() && options.method != Start::spawn)
    return refuse(".program is for Start::spawn");
  struct sigaction children = {};
  sigaction(SIGCHLD, nullptr, &children);
  if (children.sa_handler == SIG_IGN || (children.sa_flags & SA_NOCLDWAIT) != 0) {
    return refuse(
        "SIGCHLD is ignored in this process, so the kernel would throw their exit statuses away; "
        "give it SIG_DFL or a handler before start()");
  }
  if (options.method == Start::fork)
    return options.threads == Threads::allow ? Expected<void>() : check_threads("fork");
  if (job.function == nullptr) {
    return refuse(
        "only Start::fork can start this function; give start<function>() one with a name or a "
        "lambda without captures");
  }
  if (program_name() == nullptr) return no_runtime_error();
  return {};
}

}  // namespace

tl::unexpected<Error> no_runtime_error() {
  return make_error(ErrorCode::no_runtime,
                    "main() has no Runtime, which is to be its first line: `cowshed::Runtime "
                    "runtime(argc, argv);`");
}

Expected<void> prepare(const WorkersOptions& options, const internal::WorkerJob& job,
                       Launch& launch) {
  launch.method = options.method;
  launch.count = options.count;
  launch.program = options.program;
  launch.setup.parent = getpid();
  launch.setup.die_with_parent = options.die_with_parent;
  launch.setup.environment = options.environment;
  TRY_VOID(check_options(options, job));
  if (options.method == Start::fork)
    return process_tree::start();  // or each worker would begin one, and hand up to nobody
  try {
    Encoder to;
    Setup setup = launch.setup;
    if (options.method == Start::spawn)
      setup.environment.clear();  // it has it from its first moment
    encode(to, setup);
    to.put(std::string(job.function->name)).put(job.function->layout);
    job.arguments(to);
    launch.job = to.finish();
  } catch (const std::exception& failure) {
    return make_error(ErrorCode::system_call, std::string("its arguments could not be sent: ") +
                                                  internal::text_of(failure));
  }
  if (options.method == Start::spawn) {
    TRY(launch.arenas, pack_arenas());
    return {};
  }
  if (options.server != nullptr) {
    launch.server = options.server->process();
  } else {
    TRY(launch.server, ForkServerProcess::of_process());
  }
  return {};
}

}  // namespace cowshed::launch
