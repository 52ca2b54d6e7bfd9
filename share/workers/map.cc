#include <algorithm>
#include <cerrno>
#include <chrono>
#include <poll.h>
#include <string>
#include <thread>

#include <cowshed/base/exception_text.h>
#include <cowshed/base/try.h>
#include <cowshed/share/map.h>
#include <cowshed/share/wire/content.h>

// map(): the worker's loop, and the parent's queue of items.
namespace cowshed::internal {
namespace {

Decoder decode(const Bytes& bytes) {
  return Decoder(Content(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
                         FileDescriptor(), 0, {}));
}

std::string item_name(std::uint64_t index) { return "item " + std::to_string(index); }

Content encode_error(std::uint64_t index, ErrorCode code, const std::string& text) {
  Encoder to;
  to.put(index).put(false).put(code).put(text);
  return to.finish();
}

Content encode_value(std::uint64_t index, Decoder& item, const MapCall& call) {
  try {
    Encoder to;
    to.put(index).put(true);
    call(item, to);
    Content value = to.finish();
    if (!value.descriptors().empty()) {
      throw std::runtime_error(
          "its value has an arena or a channel, which only start() can return");
    }
    return value;
  } catch (...) {
    return encode_error(index, ErrorCode::worker_failed, text_of_current_exception());
  }
}

std::string too_large(const char* what, std::uint64_t bytes) {
  return std::string(what) + std::to_string(bytes) +
         " bytes; map() carries less than 1 GiB at once: pass a Ref, or use start(), whose workers "
         "can return an arena";
}

// The name of a channel has at most 63 bytes.
std::string channel_name(const std::string& workers, std::string_view what) {
  std::size_t size = std::min(workers.size(), 63 - what.size());
  const auto splits_character = [&] {  // of UTF-8
    return size > 0 && size < workers.size() && (workers[size] & 0xC0) == 0x80;
  };
  while (splits_character()) --size;
  return workers.substr(0, size).append(what);
}

// The channel, and the parent, may learn of a death a little later.
constexpr int kAttempts = 20;
constexpr auto kBetweenAttempts = std::chrono::milliseconds(5);

// Whether a later try may succeed: the channel is full or empty, or a stopped process blocks it.
bool is_for_now(const Error& error) {
  return error.code == ErrorCode::would_block || error.code == ErrorCode::peer_stopped;
}

}  // namespace

void serve_map(Channel<Bytes>& tasks, Channel<Bytes>& results, std::string_view value_type,
               const MapCall& call) {
  const auto row = results.internals().segment().row(value_type, TransferKind::value);
  const auto send = [&](Content& value) {
    return results.internals().send(value.view(), {}, &row);
  };
  for (;;) {
    auto task = tasks.receive();
    if (!task && task.error().code == ErrorCode::closed) return;
    Decoder item = decode(task.value());
    ByteChannel::keep_in_hand(*task);  // the task is lost if this worker dies before its result
    *task = Bytes();                   // frees its memory
    const auto index = item.take<std::uint64_t>();
    Content value = encode_value(index, item, call);
    auto sent = send(value);
    if (!sent && sent.error().code == ErrorCode::message_too_large) {
      Content error = encode_error(index, ErrorCode::message_too_large,
                                   too_large("its value has ", value.view().size()));
      sent = send(error);
    }
    if (!sent) throw std::runtime_error(sent.error().message);
  }
}

tl::unexpected<Error> item_error(ErrorCode code, std::uint64_t index) {
  return make_error(code, item_name(index) + ": " + text_of_current_exception());
}

Expected<MapQueue> MapQueue::create(const MapOptions& options, std::string_view item_type) {
  const auto count = static_cast<std::size_t>(std::max(options.workers.count, 1));
  const std::size_t window = options.window != 0 ? options.window : 4 * count;
  const std::string& name = options.workers.name;
  TRY(auto tasks, Channel<Bytes>::create({.name = channel_name(name, " tasks"), .slots = window}));
  TRY(auto results,
      Channel<Bytes>::create({.name = channel_name(name, " results"), .slots = window}));
  const auto sent = tasks.internals().segment().row(item_type, TransferKind::value);
  return MapQueue(std::move(tasks), std::move(results), window, options.workers.restarts, sent);
}

void MapQueue::put_task(std::uint64_t index, Encoder task) {
  under_way_[index].content = std::make_shared<Content>(task.finish());
  unsent_.push_back(index);
}

Expected<bool> MapQueue::send_tasks() {
  for (; !unsent_.empty(); unsent_.pop_front()) {
    Task& task = under_way_[unsent_.front()];
    if (const auto sent = tasks_.internals().send(task.content->view(), Wait::never(), &sent_);
        !sent) {
      if (is_for_now(sent.error())) return false;
      if (sent.error().code == ErrorCode::message_too_large) {
        return make_error(
            ErrorCode::message_too_large,
            item_name(unsent_.front()) + too_large(": it has ", task.content->view().size()));
      }
      return tl::make_unexpected(sent.error());
    }
    task.message = messages_++;
    if (task.losses == restarts_) task.content.reset();
  }
  return true;
}

Expected<MapResult> MapQueue::receive() {
  for (;;) {
    TRY(const Collected collected, collect_results());
    if (!arrived_.empty()) {
      auto first = std::move(arrived_.front());
      arrived_.pop_front();
      return first;
    }
    TRY_VOID(wait(collected));
    TRY_VOID(send_tasks());
  }
}

Expected<MapQueue::Collected> MapQueue::collect_results() {
  for (;;) {
    auto bytes = results_.try_receive();
    if (!bytes) {
      if (is_for_now(bytes.error()))
        return bytes.error().code == ErrorCode::would_block ? Collected::all : Collected::some;
      return tl::make_unexpected(std::move(bytes.error()));
    }
    Decoder from = decode(*bytes);
    const auto index = from.take<std::uint64_t>();
    under_way_.erase(index);
    if (from.take<bool>()) {
      arrived_.emplace_back(MapResult{index, std::move(from)});
    } else {
      const auto code = from.take<ErrorCode>();
      arrived_.emplace_back(make_error(code, item_name(index) + ": " + from.take<std::string>()));
    }
  }
}

// Waits until there may be a result, and handles workers that died.
Expected<void> MapQueue::wait(Collected collected) {
  TRY(const int readable, results_.descriptor());
  // If a stopped process blocks the channel, it stays readable: do not poll it.
  std::vector<pollfd> events = {{collected == Collected::all ? readable : -1, POLLIN, 0}};
  for (const WorkerProcess& worker : workers_->processes())
    events.push_back({worker.pidfd(), POLLIN, 0});
  constexpr int kAtMost = 100;  // ms; then a stopped worker may run again
  const int happened = poll(events.data(), events.size(), kAtMost);
  if (happened < 0 && errno != EINTR) return system_error("map: poll", errno);
  TRY(const auto dead, reap());
  if (!dead.empty() || (happened == 0 && !how_it_ended_.empty())) TRY_VOID(requeue_lost());
  for (const WorkerEnd& end : dead) TRY_VOID(restart(end.exit));
  return {};
}

Expected<std::vector<WorkerEnd>> MapQueue::reap() {
  TRY(auto dead, workers_->reap_ended());
  for (const WorkerEnd& end : dead) how_it_ended_[end.exit.pid] = end.exit.error;
  return dead;
}

// Queues the tasks of dead workers again.  A later call may find more: the channel learns of a
// death when the address space is gone, and a process that reads it can delay that.
Expected<void> MapQueue::requeue_lost() {
  const ChannelStats stats = tasks_.stats();
  TRY(const Collected collected, collect_results());  // results that they sent before they died
  if (collected == Collected::some) return {};
  for (const LostMessages& lost : stats.lost) {
    const auto found = std::ranges::find_if(
        under_way_, [&](const auto& each) { return each.second.message == lost.first; });
    if (found == under_way_.end()) continue;
    auto& [index, task] = *found;
    ++task.losses;
    task.lost_by = lost.receiver;
    if (task.content == nullptr) return tl::make_unexpected(lost_error(index, task));
    task.message = kNotSent;
    unsent_.push_front(index);
  }
  return {};
}

Expected<void> MapQueue::restart(const WorkerExit& dead) {
  if (dead.restarts < restarts_) return workers_->restart(dead.rank);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    for (const auto& [index, task] : under_way_)
      if (task.lost_by == dead.pid) return tl::make_unexpected(lost_error(index, task));
    std::this_thread::sleep_for(kBetweenAttempts);
    TRY_VOID(requeue_lost());
  }
  return make_error(ErrorCode::worker_failed, dead.error);
}

Error MapQueue::lost_error(std::uint64_t index, const Task& task) {
  for (int attempt = 0; attempt < kAttempts && how_it_ended_.count(task.lost_by) == 0; ++attempt) {
    std::this_thread::sleep_for(kBetweenAttempts);  // a process ends after its address space
    (void)reap();
  }
  std::string text = item_name(index);
  if (task.losses > 1) text += ", given out " + std::to_string(task.losses) + " times";
  const auto worker = how_it_ended_.find(task.lost_by);
  text += ": " + (worker != how_it_ended_.end()
                      ? worker->second
                      : "its worker, pid " + std::to_string(task.lost_by) + ", has died");
  return {ErrorCode::worker_failed, 0, text};
}

Expected<void> MapQueue::finish() {
  tasks_.close();
  TRY(const auto ends, workers_->wait());
  for (const WorkerEnd& end : ends)
    if (!end.exit.ok()) return make_error(ErrorCode::worker_failed, end.exit.error);
  return {};
}

}  // namespace cowshed::internal
