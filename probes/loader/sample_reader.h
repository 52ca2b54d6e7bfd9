#pragma once

#include <memory>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/probes/loader/bpf_programs.h>
#include <cowshed/probes/samples.h>

namespace cowshed {

// Reads samples from the ring buffer.  Move-only.  One thread at a time.  A thread of its own takes
// them out of a buffer that fills, at a real-time priority if that is permitted: a burst of many
// processes keeps the other threads from the CPU.  The programs must outlive it.
class SampleReader {
 public:
  static Expected<SampleReader> open(const Programs& programs);
  SampleReader(SampleReader&&) noexcept;
  SampleReader& operator=(SampleReader&&) noexcept;
  ~SampleReader();

  // Returns the samples in the buffer, in order for each thread.  Samples that arrive meanwhile may
  // wait for the next call.
  Expected<std::vector<CopySample>> take();

  // Readable as soon as a sample is in the buffer.
  int fd() const;

  Expected<SampleCounts> counts() const;

 private:
  class Buffer;
  explicit SampleReader(std::unique_ptr<Buffer> buffer);
  std::unique_ptr<Buffer> buffer_;
};

}  // namespace cowshed
