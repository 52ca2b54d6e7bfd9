#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/probes/loader/bpf_programs.h>
#include <cowshed/probes/loader/python_records.h>
#include <cowshed/probes/samples.h>

struct ring_buffer;

namespace cowshed {

// Reads samples from the ring buffer.  Move-only.  One thread at a time.
class SampleReader {
 public:
  static Expected<SampleReader> open(const Programs& programs);

  // Returns the samples in the buffer, in order for each thread.  Samples that arrive meanwhile may
  // wait for the next call.
  Expected<std::vector<CopySample>> take();

  // Readable as soon as a sample is in the buffer.
  int fd() const;

  Expected<SampleCounts> counts() const;

 private:
  struct Arrived {
    std::vector<CopySample> samples;
    // By process, until a sample of it comes.
    std::map<std::uint64_t, std::shared_ptr<const CopySample>> forks;
    PythonRecords python;
    std::size_t bytes = 0;  // of the buffer
    std::size_t buffer_bytes = 0;
  };
  static int receive(void* arrived, void* data, std::size_t bytes);
  static void receive_sample(Arrived& arrived, const void* data, std::size_t bytes);

  SampleReader() = default;

  int counts_map_ = -1;
  std::unique_ptr<Arrived> arrived_ =
      std::make_unique<Arrived>();  // the buffer's callback fills it
  std::unique_ptr<ring_buffer, void (*)(ring_buffer*)> buffer_{nullptr, nullptr};
  std::uint64_t received_ = 0;
};

}  // namespace cowshed
