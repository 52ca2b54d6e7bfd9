#include "start_jobs.h"

#include <chrono>
#include <csignal>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <unistd.h>

#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

#include "got.h"
#include "peer.h"

namespace cowshed::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Words = std::span<const std::uint64_t>;

JobAnswer add_up(Words words) {
  const volatile std::uint64_t& first = words.front();
  JobAnswer answer = {};
  answer.first = first;
  answer.first_at = Clock::now().time_since_epoch().count();
  answer.sum = std::accumulate(words.begin(), words.end(), std::uint64_t{0});
  return answer;
}

JobAnswer add_up_referred(Ref<Words> words) { return add_up(*words); }
JobAnswer add_up_sent(const std::vector<std::uint64_t>& words) { return add_up(words); }

// Words from standard input, behind how many bytes they are.
int add_up_written() {
  std::size_t bytes = 0;
  read_all(STDIN_FILENO, &bytes, sizeof bytes);
  const std::size_t count = bytes / sizeof(std::uint64_t);
  const auto words = std::make_unique_for_overwrite<std::uint64_t[]>(count);
  read_all(STDIN_FILENO, words.get(), bytes);
  const JobAnswer answer = add_up({words.get(), count});
  write_all(STDOUT_FILENO, &answer, sizeof answer);
  return 0;
}

double us(Clock::duration time) { return std::chrono::duration<double, std::micro>(time).count(); }

}  // namespace

const NamedTask add_up_task = {"--add-up", add_up_written};

Jobs::Jobs(const Holder& holder, std::size_t bytes)
    : answer_(static_cast<JobAnswer*>(shared_memory(sizeof(JobAnswer)))) {
  std::signal(SIGPIPE, SIG_IGN);  // a worker that dies early is told
  const std::size_t count = bytes / sizeof(std::uint64_t);
  if (holder.is_in_arena()) {
    words_ = holder.data().words().first(count);
    in_arena_ = got(publish("words", words_));
  } else {
    on_heap_.resize(count);
    std::iota(on_heap_.begin(), on_heap_.end(), std::uint64_t{1});
    words_ = on_heap_;
  }
  first_ = words_.front();
  sum_ = std::accumulate(words_.begin(), words_.end(), std::uint64_t{0});
}

JobTimes Jobs::measure(const std::string& method) {
  const auto before = Clock::now();
  const JobAnswer answer = is_bare(method) ? by_hand(method) : by_library(method);
  const auto ended = Clock::now();
  if (answer.first != first_ || answer.sum != sum_) {
    throw std::runtime_error("a worker by " + method + " has added up something else");
  }
  return {us(Clock::duration(answer.first_at) - before.time_since_epoch()), us(ended - before)};
}

JobAnswer Jobs::by_hand(const std::string& method) {
  BareTask task = {[this] { *answer_ = add_up(words_); }, add_up_task.name, STDIN_FILENO,
                   STDOUT_FILENO};
  *answer_ = {};
  if (!starts_program(method)) {
    BareWorker(method, task).reap();
    return *answer_;
  }
  Pipe words;
  Pipe answer;
  words.grow();
  task.input = words.read_end();
  task.output = answer.write_end();
  BareWorker worker(method, task);
  answer.close_write_end();
  words.close_read_end();
  const std::size_t bytes = words_.size_bytes();
  write_all(words.write_end(), &bytes, sizeof bytes);
  write_all(words.write_end(), words_.data(), bytes);
  read_all(answer.read_end(), answer_, sizeof *answer_);
  worker.reap();
  return *answer_;
}

JobAnswer Jobs::by_library(const std::string& method) {
  WorkersOptions options;
  if (method == "spawn") options.method = Start::spawn;
  if (method == "forkserver") {
    if (!server_) server_.emplace(got(ForkServer::start()));
    options.method = Start::forkserver;
    options.server = &*server_;
  }
  auto workers = in_arena_ ? got(start<add_up_referred>(options, *in_arena_))
                           : got(start<add_up_sent>(options, on_heap_));
  const auto results = got(workers.wait());
  if (!results[0].value) throw std::runtime_error(results[0].error);
  return *results[0].value;
}

}  // namespace cowshed::bench
