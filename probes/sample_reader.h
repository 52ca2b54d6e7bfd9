#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/probes/programs.h>
#include <cowshed/probes/samples.h>

struct ring_buffer;

namespace cowshed {

// Takes samples out of the ring buffer.  Move-only; one thread at a time.
class SampleReader {
 public:
  static Expected<SampleReader> open(const Programs& programs);

  // All that are there, each thread's in order.
  Expected<std::vector<CopySample>> take();

  Expected<SampleCounts> counts() const;

 private:
  struct Free {
    void operator()(ring_buffer* buffer) const;
  };
  using Samples = std::vector<CopySample>;

  SampleReader() = default;

  int counts_map_ = -1;
  std::unique_ptr<Samples> arrived_ =
      std::make_unique<Samples>();  // the buffer's callback fills it
  std::unique_ptr<ring_buffer, Free> buffer_;
  std::uint64_t received_ = 0;
};

}  // namespace cowshed
