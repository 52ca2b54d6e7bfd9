#include "channel_lanes.h"

#include <algorithm>
#include <atomic>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include <cowshed/share/channel.h>

#include "got.h"

namespace cowshed::bench {
namespace {

Message message(std::uint64_t number) { return {number, {}}; }

Channel<Message> make_channel(ChannelForm form) {
  return got(Channel<Message>::create({.name = "bench", .slots = kSlots, .form = form}));
}

Lane one_by_one(ChannelForm form) {
  const auto channel = std::make_shared<Channel<Message>>(make_channel(form));
  return {[channel](std::uint64_t count) {
            for (std::uint64_t i = 0; i < count; ++i) {
              got(channel->send(message(i)));
            }
          },
          [channel](std::uint64_t count) {
            std::uint64_t sum = 0;
            for (std::uint64_t i = 0; i < count; ++i) {
              sum += got(channel->receive()).number;
            }
            return sum;
          }};
}

// The next up to kBatch numbers into `batch`: how many.
std::uint64_t fill(std::array<Message, kBatch>& batch, std::uint64_t from, std::uint64_t count) {
  const std::uint64_t some = std::min(kBatch, count - from);
  for (std::uint64_t i = 0; i < some; ++i) {
    batch[i].number = from + i;
  }
  return some;
}

Lane batched(ChannelForm form) {
  const auto channel = std::make_shared<Channel<Message>>(make_channel(form));
  return {[channel](std::uint64_t count) {
            std::array<Message, kBatch> batch{};
            for (std::uint64_t i = 0; i < count;) {
              const std::uint64_t some = fill(batch, i, count);
              i += got(channel->send_batch(std::span(batch).first(some)));
            }
          },
          [channel](std::uint64_t count) {
            std::array<Message, kBatch> batch{};
            std::uint64_t sum = 0;
            for (std::uint64_t i = 0; i < count;) {
              const std::uint64_t some =
                  got(channel->receive_batch(std::span(batch).first(std::min(kBatch, count - i))));
              for (std::uint64_t k = 0; k < some; ++k) {
                sum += batch[k].number;
              }
              i += some;
            }
            return sum;
          }};
}

Lane boost_queue() {
  namespace ipc = boost::interprocess;
  const std::string name = "cowshed_bench_" + std::to_string(getpid());
  const auto queue =
      std::make_shared<ipc::message_queue>(ipc::create_only, name.c_str(), kSlots, sizeof(Message));
  ipc::message_queue::remove(name.c_str());  // it stays mapped
  return {[queue](std::uint64_t count) {
            for (std::uint64_t i = 0; i < count; ++i) {
              const Message sent = message(i);
              queue->send(&sent, sizeof sent, 0);
            }
          },
          [queue](std::uint64_t count) {
            std::uint64_t sum = 0;
            for (std::uint64_t i = 0; i < count; ++i) {
              Message received{};
              std::size_t size = 0;
              unsigned priority = 0;
              queue->receive(&received, sizeof received, size, priority);
              sum += received.number;
            }
            return sum;
          }};
}

Lane pipe_lane() {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) {
    throw std::runtime_error("pipe");
  }
  std::FILE* reader = fdopen(ends[0], "r");
  const auto buffer = std::make_shared<std::array<char, 65536>>();
  std::setvbuf(reader, buffer->data(), _IOFBF, buffer->size());
  return {[writer = ends[1]](std::uint64_t count) {
            for (std::uint64_t i = 0; i < count; ++i) {
              const Message sent = message(i);
              if (write(writer, &sent, sizeof sent) != sizeof sent) {
                throw std::runtime_error("write to a pipe");
              }
            }
          },
          [reader, buffer](std::uint64_t count) {
            std::uint64_t sum = 0;
            for (std::uint64_t i = 0; i < count; ++i) {
              Message received{};
              if (std::fread(&received, sizeof received, 1, reader) != 1) {
                throw std::runtime_error("read from a pipe");
              }
              sum += received.number;
            }
            return sum;
          }};
}

// Nothing but two indices, each side with a copy of the other's.
struct Ring {
  alignas(128) std::atomic<std::uint64_t> tail = 0;
  alignas(128) std::atomic<std::uint64_t> head = 0;
  alignas(128) std::array<Message, kSlots> slots;
};

Lane ring_lane(std::uint64_t batch) {
  void* memory =
      mmap(nullptr, sizeof(Ring), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw std::runtime_error("mmap");
  }
  auto* ring = new (memory) Ring;
  return {[ring, batch](std::uint64_t count) {
            std::uint64_t tail = ring->tail.load(std::memory_order_relaxed);
            std::uint64_t head = tail;
            std::array<Message, kBatch> some{};
            for (std::uint64_t i = 0; i < count;) {
              const std::uint64_t n = std::min(batch, count - i);
              for (std::uint64_t k = 0; k < n; ++k) {
                some[k].number = i + k;
              }
              while (tail + n - head > kSlots) {
                head = ring->head.load(std::memory_order_acquire);
              }
              for (std::uint64_t k = 0; k < n; ++k) {
                ring->slots[(tail + k) % kSlots] = some[k];
              }
              tail += n;
              ring->tail.store(tail, std::memory_order_release);
              i += n;
            }
          },
          [ring, batch](std::uint64_t count) {
            std::uint64_t head = ring->head.load(std::memory_order_relaxed);
            std::uint64_t tail = head;
            std::uint64_t sum = 0;
            std::array<Message, kBatch> some{};
            for (std::uint64_t i = 0; i < count;) {
              while (tail == head) {
                tail = ring->tail.load(std::memory_order_acquire);
              }
              const std::uint64_t n = std::min({batch, count - i, tail - head});
              for (std::uint64_t k = 0; k < n; ++k) {
                some[k] = ring->slots[(head + k) % kSlots];
              }
              head += n;
              ring->head.store(head, std::memory_order_release);
              for (std::uint64_t k = 0; k < n; ++k) {
                sum += some[k].number;
              }
              i += n;
            }
            return sum;
          }};
}

}  // namespace

Lane make_lane(const std::string& variant) {
  constexpr auto kSingle = ChannelForm::single_producer_single_consumer;
  if (variant == "general") return one_by_one(ChannelForm::general);
  if (variant == "single") return one_by_one(kSingle);
  if (variant == "general batched") return batched(ChannelForm::general);
  if (variant == "single batched") return batched(kSingle);
  if (variant == "boost") return boost_queue();
  if (variant == "pipe") return pipe_lane();
  if (variant == "ring") return ring_lane(1);
  if (variant == "ring batched") return ring_lane(kBatch);
  throw std::runtime_error("no such variant: " + variant);
}

}  // namespace cowshed::bench
