// A program that forgot its Runtime: exits with 0 when it is told so, and hangs when it is started
// as a worker.  It starts a worker before main(), too, where nothing has made the streams ready: no
// <iostream> here.

#include <unistd.h>

#include <cowshed/share/forkserver.h>
#include <cowshed/share/workers.h>

namespace {

void work() {}
long twice(long number) { return 2 * number; }

struct AtStart {
  long answer = cowshed::start<twice>({}, 4L).value().wait().value()[0].value.value_or(-1);
};
const AtStart at_start;

}  // namespace

int main(int argc, char**) {
  if (argc > 1) pause();
  const auto workers = cowshed::start<work>({.method = cowshed::Start::spawn});
  const auto server = cowshed::ForkServer::start();
  const auto is_told = [](const auto& result) {
    return !result && result.error().code == cowshed::ErrorCode::no_runtime;
  };
  return at_start.answer == 8 && is_told(workers) && is_told(server) ? 0 : 1;
}
