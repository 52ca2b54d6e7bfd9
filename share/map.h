#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <ranges>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <type_traits>
#include <utility>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/share/accounting/counter.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/workers.h>

// Applies a function to each item of a range, in worker processes.
//
//   double score(const Document& document, const Index& index);
//
//   auto scores = cowshed::map<score>({.workers = {.method = Start::spawn, .count = 8}},
//                                     documents, ref);     // Expected<std::vector<double>>
//
// Results arrive in the order of the range.  At most `window` items are read ahead of the next
// result, so a slow item delays the reading of the range.
//
// Each result arrives exactly once, also if workers are killed.  With .workers.restarts = n, a
// worker that dies is restarted, and its item goes to another worker, each up to n times.  So the
// function may be called n + 1 times for one item.  For that the parent keeps a copy of each item
// until its result arrives, in a memfd if it is large.
namespace cowshed {

struct MapOptions {
  WorkersOptions workers = {};
  std::size_t window = 0;  // items; 0: four for each worker
};

namespace internal {

using MapCall = std::function<void(Decoder& item, Encoder& value)>;
// A worker's main loop, which ends when `tasks` is closed.  `value_type` is for transfer_report().
void serve_map(Channel<Bytes>& tasks, Channel<Bytes>& results, std::string_view value_type,
               const MapCall& call);

template <auto function, class Extra>
struct MapWorker;
template <auto function, std::size_t... extra>
struct MapWorker<function, std::index_sequence<extra...>> {
  using Parts = typename Registered<function>::Parts;
  using Item = typename Parts::template Parameter<0>;
  using R = std::remove_cvref_t<typename Parts::Value>;
  static_assert(!std::is_void_v<R> && Codable<R>,
                "map() needs a function whose value can be sent: see codec.h");
  static_assert(Codable<std::remove_cvref_t<Item>>,
                "map() needs items that can be sent: see codec.h");
  static_assert(RefsSpawnSafe<std::remove_cvref_t<Item>>::value,
                "a reference in map()'s items has a type that may hold pointers to code, which "
                "means nothing in a spawned worker: see spawn_safe.h");

  static void run(const Worker& self, Channel<Bytes>& tasks, Channel<Bytes>& results,
                  typename Parts::template Parameter<extra + 1>... args) {
    serve_map(tasks, results, type_name<R>(), [&](Decoder& from, Encoder& value) {
      ArgumentOf<Item> item;
      item.read(from);
      if constexpr (Parts::kTakesWorker) value.put<R>(function(self, item.get(), args...));
      else value.put<R>(function(item.get(), args...));
    });
  }
};

template <auto function>
using MapWorkerOf =
    MapWorker<function, std::make_index_sequence<Registered<function>::Parts::kParameters - 1>>;

struct MapResult {
  std::uint64_t index;
  Decoder value;
};

// The exception of a Codec in the parent, which is being handled.
tl::unexpected<Error> item_error(ErrorCode code, std::uint64_t index);

// The parent's side: sends items, receives results, and sends the items of dead workers again.
class MapQueue {
 public:
  static Expected<MapQueue> create(const MapOptions& options, std::string_view item_type);

  void serve_by(WorkersHandle workers) { workers_ = std::move(workers); }
  Channel<Bytes>& tasks() { return tasks_; }
  Channel<Bytes>& results() { return results_; }
  std::size_t window() const { return window_; }

  void put_task(std::uint64_t index, Encoder task);
  // Returns false if there is no room now for all tasks that were put.
  Expected<bool> send_tasks();
  // Waits for a result, of any task.  Errors: worker_failed.
  Expected<MapResult> receive();
  // Closes the tasks and waits until the workers have ended.
  Expected<void> finish();

 private:
  static constexpr auto kNotSent = ~std::uint64_t{0};
  // An item between put_task() and its result.
  struct Task {
    std::shared_ptr<Content> content;  // null: it was sent, and will not be sent again
    std::uint64_t message = kNotSent;  // its number in the channel
    int losses = 0;                    // how many workers died while they had it
    pid_t lost_by = 0;                 // the last of them
  };
  enum class Collected : std::uint8_t { all, some };  // some: a stopped process is in the way

  MapQueue(Channel<Bytes> tasks, Channel<Bytes> results, std::size_t window, int restarts,
           TransferRow sent)
      : tasks_(std::move(tasks)),
        results_(std::move(results)),
        window_(window),
        restarts_(restarts),
        sent_(sent) {}
  Expected<Collected> collect_results();
  Expected<void> wait(Collected collected);
  Expected<std::vector<WorkerEnd>> reap();
  Expected<void> requeue_lost();
  Expected<void> restart(const WorkerExit& dead);
  Error lost_error(std::uint64_t index, const Task& task);

  Channel<Bytes> tasks_;
  Channel<Bytes> results_;
  std::size_t window_;
  int restarts_;
  TransferRow sent_;
  std::map<std::uint64_t, Task> under_way_;  // by index
  std::deque<std::uint64_t> unsent_;
  std::uint64_t messages_ = 0;                 // ever sent
  std::deque<Expected<MapResult>> arrived_;    // not yet returned by receive()
  std::map<pid_t, std::string> how_it_ended_;  // by the worker's PID
  WorkersHandle workers_;
};

}  // namespace internal

// Calls `consumer` with each value, in the order of the range, on this thread.  The function gets
// the item first and then `args`, see start().  On an error all workers are killed.  Errors: those
// of start(); worker_failed (the function threw, or a worker died too often; the message names the
// item, the worker and how it ended); message_too_large (an item or a value has 1 GiB or more);
// system_call (there is no memory for an item, or its Codec threw).
template <auto function, std::ranges::input_range Range, class Consumer, class... Args>
Expected<void> map_each(const MapOptions& options, Range&& range, Consumer&& consumer,
                        Args&&... args) {
  using MapWorker = internal::MapWorkerOf<function>;
  static_assert(internal::RefsSpawnSafe<std::ranges::range_value_t<Range>>::value,
                "a reference in map()'s range has a type that may hold pointers to code, which "
                "means nothing in a spawned worker: see spawn_safe.h");
  using Item = std::remove_cvref_t<typename MapWorker::Item>;
  auto queue = internal::MapQueue::create(options, type_name<Item>());
  if (!queue) return tl::make_unexpected(std::move(queue.error()));
  auto workers = start<&MapWorker::run>(options.workers, queue->tasks(), queue->results(), args...);
  if (!workers) return tl::make_unexpected(std::move(workers.error()));
  queue->serve_by(std::move(*workers).release());
  std::uint64_t read = 0;
  std::uint64_t next = 0;
  std::map<std::uint64_t, typename MapWorker::R> early;
  auto item = std::ranges::begin(range);
  const auto end = std::ranges::end(range);
  for (;;) {
    auto all_sent = queue->send_tasks();
    while (all_sent && *all_sent && item != end && read < next + queue->window()) {
      auto&& next_item = *item;
      try {
        Encoder to;
        to.put(read);
        internal::ArgumentOf<typename MapWorker::Item>::encode(to, next_item);
        queue->put_task(read, std::move(to));
      } catch (...) {
        return internal::item_error(ErrorCode::system_call, read);
      }
      ++read;
      ++item;
      all_sent = queue->send_tasks();
    }
    if (!all_sent) return tl::make_unexpected(std::move(all_sent.error()));
    if (next == read) return queue->finish();
    auto result = queue->receive();
    if (!result) return tl::make_unexpected(std::move(result.error()));
    try {
      early.emplace(result->index, result->value.template take<typename MapWorker::R>());
    } catch (...) {
      return internal::item_error(ErrorCode::worker_failed, result->index);
    }
    for (auto first = early.begin(); first != early.end() && first->first == next; ++next) {
      consumer(std::move(first->second));
      first = early.erase(first);
    }
  }
}

// As map_each(), but returns all values.
template <auto function, std::ranges::input_range Range, class... Args>
auto map(const MapOptions& options, Range&& range, Args&&... args)
    -> Expected<std::vector<typename internal::MapWorkerOf<function>::R>> {
  std::vector<typename internal::MapWorkerOf<function>::R> values;
  const auto keep = [&](auto&& value) { values.push_back(std::forward<decltype(value)>(value)); };
  return map_each<function>(options, std::forward<Range>(range), keep, std::forward<Args>(args)...)
      .map([&] { return std::move(values); });
}

}  // namespace cowshed
