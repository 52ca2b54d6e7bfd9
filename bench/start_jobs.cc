#include "start_jobs.h"

#include <chrono>
#include <numeric>
#include <stdexcept>

#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

#include "got.h"

namespace cowshed::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Words = std::span<const std::uint64_t>;

struct JobAnswer {
  std::int64_t first_at;  // of Clock, which all processes have in common
  std::uint64_t first;
  std::uint64_t sum;
};

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

double us(Clock::duration time) { return std::chrono::duration<double, std::micro>(time).count(); }

}  // namespace

Jobs::Jobs(const Holder& holder, std::size_t bytes) {
  Words words = holder.data().words();
  if (words.empty()) {
    on_heap_.resize(bytes / sizeof(std::uint64_t));
    std::iota(on_heap_.begin(), on_heap_.end(), std::uint64_t{1});
    words = on_heap_;
  } else {
    in_arena_ = got(publish("words", words));
  }
  first_ = words.front();
  sum_ = std::accumulate(words.begin(), words.end(), std::uint64_t{0});
}

JobTimes Jobs::measure(const std::string& method) {
  WorkersOptions options;
  if (method == "spawn") options.method = Start::spawn;
  if (method == "forkserver") {
    if (!server_) server_.emplace(got(ForkServer::start()));
    options.method = Start::forkserver;
    options.server = &*server_;
  }
  const auto before = Clock::now();
  auto workers = in_arena_ ? got(start<add_up_referred>(options, *in_arena_))
                           : got(start<add_up_sent>(options, on_heap_));
  const auto results = got(workers.wait());
  const auto ended = Clock::now();
  if (!results[0].value) throw std::runtime_error(results[0].error);
  const JobAnswer answer = *results[0].value;
  if (answer.first != first_ || answer.sum != sum_) {
    throw std::runtime_error("a worker by " + method + " has added up something else");
  }
  return {us(Clock::duration(answer.first_at) - before.time_since_epoch()), us(ended - before)};
}

}  // namespace cowshed::bench
