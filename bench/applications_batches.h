#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "applications_samples.h"

namespace cowshed::bench {

// Orders from a process to the workers that it forks, and their batches back.
class BatchLanes {
 public:
  struct Batch {
    std::uint64_t worker;
    std::uint64_t number;
    std::span<const std::byte> bytes;  // until the next receive()
  };
  using Fill = std::function<void(std::span<std::byte>)>;

  BatchLanes() = default;
  virtual ~BatchLanes() = default;
  BatchLanes(const BatchLanes&) = delete;
  BatchLanes& operator=(const BatchLanes&) = delete;

  // In the process that forks.  An order may reach another worker that waits, too.
  virtual void send_order(std::uint64_t worker, const BatchOrder& order) = 0;
  virtual Batch receive() = 0;

  // In a worker.
  virtual BatchOrder take_order(std::uint64_t worker) = 0;
  virtual void send_batch(std::uint64_t worker, std::uint64_t number, std::size_t size,
                          const Fill& fill) = 0;

  // Whether batches lie where both processes can read them, so that sending copies nothing.
  virtual bool in_place() const = 0;
};

// `kind` is "channel" or "pipe".
std::unique_ptr<BatchLanes> make_batch_lanes(const std::string& kind, std::size_t workers);

}  // namespace cowshed::bench
