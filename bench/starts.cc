#include "starts.h"

#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>

#include <cowshed/share/workers.h>

#include "got.h"
#include "repeat.h"

namespace cowshed::bench {
namespace {

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::int64_t begin_worker() { return now_ns(); }

int say_when() {
  const std::int64_t now = now_ns();
  return write(STDOUT_FILENO, &now, sizeof now) == sizeof now ? 0 : 1;
}

}  // namespace

const NamedTask begin_task = {"--begin", say_when};

Starter::Starter()
    : clock_(static_cast<std::int64_t*>(
          mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
  if (clock_ == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap");
}

StartTimes Starter::measure(const std::string& method) try {
  const auto times = repeat([&] { return measure_one(method); });
  return {median_of(times, &StartTimes::begin_us), median_of(times, &StartTimes::cycle_us)};
} catch (const std::runtime_error& failure) {
  throw std::runtime_error("a worker by " + method + ": " + failure.what());
}

StartTimes Starter::measure_one(const std::string& method) {
  *clock_ = 0;
  const std::int64_t before = now_ns();
  const std::int64_t begun = is_bare(method) ? by_hand(method) : by_library(method);
  const std::int64_t ended = now_ns();
  if (begun < before || begun > ended) {
    throw std::runtime_error("it did not begin when it was started");
  }
  return {static_cast<double>(begun - before) / 1000, static_cast<double>(ended - before) / 1000};
}

std::int64_t Starter::by_hand(const std::string& method) {
  BareTask task = {[this] { *clock_ = now_ns(); }, begin_task.name, STDIN_FILENO, STDOUT_FILENO};
  if (!starts_program(method)) {
    BareWorker(method, task).reap();
    return *clock_;
  }
  Pipe begun;
  task.output = begun.write_end();
  BareWorker worker(method, task);
  begun.close_write_end();
  read_all(begun.read_end(), clock_, sizeof *clock_);
  worker.reap();
  return *clock_;
}

std::int64_t Starter::by_library(const std::string& method) {
  WorkersOptions options;
  if (method == "spawn") options.method = Start::spawn;
  if (method == "forkserver") {
    if (!server_) server_.emplace(got(ForkServer::start()));
    options.method = Start::forkserver;
    options.server = &*server_;
  }
  auto workers = got(start<begin_worker>(options));
  const auto results = got(workers.wait());
  if (!results[0].value) throw std::runtime_error(results[0].error);
  return *results[0].value;
}

}  // namespace cowshed::bench
