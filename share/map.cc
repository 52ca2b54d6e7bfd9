#include <algorithm>
#include <cerrno>
#include <chrono>
#include <poll.h>
#include <string>

#include <cowshed/share/content.h>
#include <cowshed/share/map.h>

namespace cowshed::internal {
namespace {

Decoder decode(const Bytes& bytes) {
  return Decoder(Content(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
                         Descriptor(), 0, {}));
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
  } catch (const std::exception& failure) {
    Encoder to;
    to.put(index).put(false).put(std::string(failure.what()));
    return to.finish();
  } catch (...) {
    Encoder to;
    to.put(index).put(false).put(std::string("an exception that is no std::exception"));
    return to.finish();
  }
}

}  // namespace

void serve_map(Channel<Bytes>& tasks, Channel<Bytes>& results, const MapCall& call) {
  while (auto task = tasks.receive()) {
    Decoder item = decode(*task);
    *task = Bytes();  // its memory is free for others meanwhile
    const auto index = item.take<std::uint64_t>();
    Content value = encode_value(index, item, call);
    auto sent = results.send(value.view());
    if (!sent && sent.error().code == ErrorCode::message_too_large) {
      Encoder to;
      to.put(index).put(false).put("its value: " + sent.error().message);
      sent = results.send(to.finish().view());
    }
    if (!sent) {
      throw std::runtime_error(sent.error().message);
    }
  }
}

Expected<MapQueue> MapQueue::create(const MapOptions& options) {
  if (options.workers.restarts != 0) {
    return make_error(ErrorCode::invalid_argument,
                      "map: a worker that fails is not started again: .restarts is 0");
  }
  const auto count = static_cast<std::size_t>(std::max(options.workers.count, 1));
  const std::size_t window = options.window != 0 ? options.window : 4 * count;
  auto tasks = Channel<Bytes>::create({.name = options.workers.name + " tasks", .slots = window});
  auto results =
      Channel<Bytes>::create({.name = options.workers.name + " results", .slots = window});
  if (!tasks || !results) {
    return tl::make_unexpected(tasks ? results.error() : tasks.error());
  }
  return MapQueue(std::move(*tasks), std::move(*results), window);
}

void MapQueue::put_task(Encoder task) { task_ = std::make_shared<Content>(task.finish()); }

Expected<bool> MapQueue::try_send() {
  const auto sent = tasks_.try_send(task_->view());
  if (!sent && sent.error().code != ErrorCode::would_block &&
      sent.error().code != ErrorCode::peer_stopped) {
    return tl::make_unexpected(sent.error());
  }
  if (sent) {
    task_.reset();
  }
  return static_cast<bool>(sent);
}

Expected<MapResult> MapQueue::receive() {
  for (;;) {
    auto bytes = results_.try_receive();
    if (bytes) {
      Decoder from = decode(*bytes);
      const auto index = from.take<std::uint64_t>();
      if (!from.take<bool>()) {
        return make_error(ErrorCode::worker_failed,
                          "item " + std::to_string(index) + ": " + from.take<std::string>());
      }
      return MapResult{index, std::move(from)};
    }
    if (bytes.error().code != ErrorCode::would_block &&
        bytes.error().code != ErrorCode::peer_stopped) {
      return tl::make_unexpected(std::move(bytes.error()));
    }
    if (auto waited = wait(); !waited) {
      return tl::make_unexpected(std::move(waited.error()));
    }
  }
}

// Until there is a result, perhaps.
Expected<void> MapQueue::wait() {
  const auto readable = results_.descriptor();
  if (!readable) {
    return tl::make_unexpected(readable.error());
  }
  std::vector<pollfd> events = {{*readable, POLLIN, 0}};
  for (const int pidfd : workers_->pidfds()) {
    events.push_back({pidfd, POLLIN, 0});
  }
  constexpr int kAtMost = 100;  // ms, for a stopped worker that goes on
  if (poll(events.data(), events.size(), kAtMost) < 0 && errno != EINTR) {
    return system_error("map: poll", errno);
  }
  for (std::size_t i = 1; i < events.size(); ++i) {
    if (events[i].revents != 0) {  // there are tasks: none may end
      const auto ends = workers_->stop(std::chrono::steady_clock::now(), false);
      return make_error(ErrorCode::worker_failed,
                        ends ? (*ends)[i - 1].exit.error + "; what it had in hand is lost"
                             : ends.error().message);
    }
  }
  return {};
}

Expected<void> MapQueue::finish() {
  tasks_.close();
  const auto ends = workers_->wait(false);
  if (!ends) {
    return tl::make_unexpected(ends.error());
  }
  for (const WorkerEnd& end : *ends) {
    if (!end.exit.ok()) {
      return make_error(ErrorCode::worker_failed, end.exit.error);
    }
  }
  return {};
}

}  // namespace cowshed::internal
