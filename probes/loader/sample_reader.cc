#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <sys/stat.h>
#include <utility>

#include <cowshed/probes/bpf/record.h>
#include <cowshed/probes/loader/kernel_records.h>
#include <cowshed/probes/loader/sample_reader.h>

namespace cowshed {
namespace {

constexpr std::size_t kWithoutStack = offsetof(cowshed_sample, stack);

static_assert(COWSHED_PAGE_BYTES == arch::kPage && COWSHED_HUGE_BYTES == arch::kHugePage);
static_assert(1UL << COWSHED_ADDRESS_BITS == arch::kEndOfAddresses + arch::kPage);
static_assert(COWSHED_REGISTERS == arch::kKernelRegisters);

CopyClass class_of(__u32 fault_class) {
  switch (fault_class) {
    case COWSHED_COPIED_FILE: return CopyClass::file;
    case COWSHED_FAILED: return CopyClass::failed;
    case COWSHED_ZERO_FILLED:
    case COWSHED_ZERO_PAGE_WRITE: return CopyClass::fresh;
    default: return CopyClass::anonymous;
  }
}

Descriptor descriptor_of(__u16 mode) {
  if (mode == 0) return Descriptor::none;
  if (S_ISFIFO(mode) || S_ISSOCK(mode)) return Descriptor::stream;
  return S_ISREG(mode) || S_ISBLK(mode) ? Descriptor::file : Descriptor::other;
}

CopySample described(const cowshed_sample& from) {
  CopySample sample;
  sample.process_id = from.process_id;
  sample.pid = static_cast<int>(from.pid);
  sample.execs = from.execs;
  sample.copies = from.copies;
  sample.missed = from.missed;
  sample.address = from.address;
  sample.risen_bytes = from.risen_bytes;
  sample.copy_class = class_of(from.fault_class);
  static_assert(static_cast<int>(AccessFailure::other) == COWSHED_OTHER_FAILURE);
  sample.failure = static_cast<AccessFailure>(from.failure);
  sample.is_handled = from.is_handled != 0;
  sample.is_of_stack = from.is_of_stack != 0;
  sample.arena = arena_name(from.arena);
  sample.user_mode = from.user_mode != 0;
  sample.is_32_bit = (from.registers[arch::kModeIndex] & arch::kModeMask) == arch::kModeOf32Bits;
  for (std::size_t i = 0; i < arch::kRegisters; ++i)
    sample.registers.at(i) = from.registers[arch::kKernelIndex.at(i)];
  const std::uint64_t system_call = from.registers[arch::kSystemCallIndex];
  if (!sample.user_mode && system_call != UINT64_MAX)
    sample.system_call = system_call + (sample.is_32_bit ? kSystemCallsOf32Bits : 0);
  if (sample.system_call && !sample.is_32_bit) sample.descriptor = descriptor_of(from.file_mode);
  std::copy(std::begin(from.instruction), std::end(from.instruction), sample.instruction.begin());
  sample.instruction_bytes = from.instruction_bytes;
  static_assert(MemoryAround::kLines == COWSHED_LINES_AROUND &&
                sizeof from.around == sizeof sample.around.words);
  constexpr std::uint64_t kLine = MemoryAround::kLineBytes;
  sample.around.begin = from.address / kLine * kLine - kLine;
  std::copy(std::begin(from.around), std::end(from.around), sample.around.words.begin());
  for (std::size_t i = 0; i < MemoryAround::kLines; ++i)
    sample.around.is_readable.at(i) = (from.around_readable >> i & 1U) != 0;
  return sample;
}

// Ends libbpf's loop after one buffer: else it would run as long as new samples arrive faster than
// we take them.
constexpr int kEnough = -ENOBUFS;

}  // namespace

void SampleReader::receive_sample(Arrived& arrived, const void* data, std::size_t bytes) {
  cowshed_sample record = {};
  std::memcpy(&record, data, std::min(bytes, kWithoutStack));
  CopySample sample = described(record);
  arrived.python.describe(record, sample);
  const auto* begin = static_cast<const std::uint8_t*>(data);
  // The ring buffer rounds `bytes` up.
  const std::size_t end = kWithoutStack + record.stack_bytes;
  if (end <= bytes) sample.stack.assign(begin + kWithoutStack, begin + end);
  if (record.kind == COWSHED_FORK_RECORD) {
    // Samples of forks that are never followed by another of that process: they were lost.
    constexpr std::size_t kMostForks = 1000;
    if (arrived.forks.size() >= kMostForks) arrived.forks.clear();
    arrived.forks[record.process_id] = std::make_shared<const CopySample>(std::move(sample));
  } else {
    if (auto fork = arrived.forks.extract(sample.process_id)) sample.fork = fork.mapped();
    arrived.samples.push_back(std::move(sample));
  }
}

int SampleReader::receive(void* to, void* data, std::size_t bytes) {
  auto* arrived = static_cast<Arrived*>(to);
  std::uint64_t kind = 0;
  std::memcpy(&kind, data, std::min(bytes, sizeof kind));
  if (kind == COWSHED_PYTHON_CODE_RECORD) arrived->python.add_code(data, bytes);
  else if (kind == COWSHED_PYTHON_TYPE_RECORD) arrived->python.add_type(data, bytes);
  else receive_sample(*arrived, data, bytes);
  arrived->bytes += bytes + BPF_RINGBUF_HDR_SZ;
  return arrived->bytes < arrived->buffer_bytes ? 0 : kEnough;
}

Expected<SampleReader> SampleReader::open(const Programs& programs) {
  SampleReader reader;
  reader.counts_map_ = programs.sample_counts_map();
  reader.buffer_ = {
      ring_buffer__new(programs.samples_map(), receive, reader.arrived_.get(), nullptr),
      ring_buffer__free};
  if (!reader.buffer_) return system_error("opening the BPF ring buffer of samples", errno);
  bpf_map_info info = {};
  __u32 size = sizeof info;
  if (bpf_obj_get_info_by_fd(programs.samples_map(), &info, &size) != 0)
    return system_error("sizing the BPF ring buffer of samples", errno);
  reader.arrived_->buffer_bytes = info.max_entries;
  return reader;
}

Expected<std::vector<CopySample>> SampleReader::take() {
  arrived_->bytes = 0;
  const int consumed = ring_buffer__consume(buffer_.get());
  if (consumed < 0 && consumed != kEnough)
    return system_error("reading the BPF ring buffer of samples", -consumed);
  received_ += static_cast<std::uint64_t>(std::ranges::count_if(
      arrived_->samples,
      [](const CopySample& sample) { return sample.copy_class != CopyClass::fresh; }));
  return std::exchange(arrived_->samples, {});
}

int SampleReader::fd() const { return ring_buffer__epoll_fd(buffer_.get()); }

Expected<SampleCounts> SampleReader::counts() const {
  std::vector<cowshed_sample_counts> parts(static_cast<std::size_t>(libbpf_num_possible_cpus()));
  const __u32 slot = 0;
  if (bpf_map_lookup_elem(counts_map_, &slot, parts.data()) != 0)
    return system_error("reading the BPF map sample_counts", errno);
  SampleCounts counts;
  for (const cowshed_sample_counts& part : parts) {
    counts.emitted += part.emitted;
    counts.lost += part.lost;
  }
  counts.received = received_;
  return counts;
}

}  // namespace cowshed
