// A program that forgot its Runtime: exits with 0 when it is told so, and hangs when it is started
// as a worker.

#include <unistd.h>

#include <cowshed/share/forkserver.h>
#include <cowshed/share/workers.h>

namespace {
void work() {}
}  // namespace

int main(int argc, char**) {
  if (argc > 1) pause();
  const auto workers = cowshed::start<work>({.method = cowshed::Start::spawn});
  const auto server = cowshed::ForkServer::start();
  const auto is_told = [](const auto& result) {
    return !result && result.error().code == cowshed::ErrorCode::no_runtime;
  };
  return is_told(workers) && is_told(server) ? 0 : 1;
}
