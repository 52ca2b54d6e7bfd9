#include <algorithm>
#include <array>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/try.h>
#include <cowshed/probes/bpf/record.h>
#include <cowshed/probes/loader/kernel_records.h>
#include <cowshed/probes/loader/python_records.h>
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

// Its holder gets the priority of the thread that waits for it.
class Mutex {
 public:
  Mutex() {
    pthread_mutexattr_t inherits;
    ::pthread_mutexattr_init(&inherits);
    ::pthread_mutexattr_setprotocol(&inherits, PTHREAD_PRIO_INHERIT);
    ::pthread_mutex_init(&mutex_, &inherits);
    ::pthread_mutexattr_destroy(&inherits);
  }
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  ~Mutex() { ::pthread_mutex_destroy(&mutex_); }
  void lock() { ::pthread_mutex_lock(&mutex_); }
  void unlock() { ::pthread_mutex_unlock(&mutex_); }

 private:
  pthread_mutex_t mutex_{};
};

Expected<FileDescriptor> open_event() {
  FileDescriptor event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return system_error("opening an event of samples", errno);
  return event;
}

}  // namespace

class SampleReader::Buffer {
 public:
  explicit Buffer(const Programs& programs)
      : alarms_map_(programs.alarms_map()),
        counts_map_(programs.sample_counts_map()),
        ring_(ring_buffer__new(programs.samples_map(), receive, this, nullptr), ring_buffer__free) {
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (!thread_.joinable()) return;
    ::eventfd_write(stop_.get(), 1);
    thread_.join();
  }

  Expected<void> open(const Programs& programs);
  Expected<std::vector<CopySample>> take();
  Expected<SampleCounts> counts() const;
  int fd() const { return ring_buffer__epoll_fd(ring_.get()); }

 private:
  static int receive(void* buffer, void* data, std::size_t bytes);
  void receive_sample(const void* data, std::size_t bytes);
  int consume();
  void start_thread();
  void keep_room();

  int alarms_map_;
  int counts_map_;
  Mutex mutex_;  // of the next six
  std::unique_ptr<ring_buffer, void (*)(ring_buffer*)> ring_;
  std::vector<CopySample> samples_;
  // By process, until a sample of it comes.
  std::map<std::uint64_t, std::shared_ptr<const CopySample>> forks_;
  PythonRecords python_;
  std::size_t consumed_bytes_ = 0;
  std::size_t buffer_bytes_ = 0;
  std::uint64_t received_ = 0;
  FileDescriptor arrived_;  // readable while the thread has taken some
  FileDescriptor stop_;
  std::thread thread_;
};

void SampleReader::Buffer::receive_sample(const void* data, std::size_t bytes) {
  cowshed_sample record = {};
  std::memcpy(&record, data, std::min(bytes, kWithoutStack));
  CopySample sample = described(record);
  python_.describe(record, sample);
  const auto* begin = static_cast<const std::uint8_t*>(data);
  // The ring buffer rounds `bytes` up.
  const std::size_t end = kWithoutStack + record.stack_bytes;
  if (end <= bytes) sample.stack.assign(begin + kWithoutStack, begin + end);
  if (record.kind == COWSHED_FORK_RECORD) {
    // Samples of forks that are never followed by another of that process: they were lost.
    constexpr std::size_t kMostForks = 1000;
    if (forks_.size() >= kMostForks) forks_.clear();
    forks_[record.process_id] = std::make_shared<const CopySample>(std::move(sample));
  } else {
    if (auto fork = forks_.extract(sample.process_id)) sample.fork = fork.mapped();
    samples_.push_back(std::move(sample));
  }
}

int SampleReader::Buffer::receive(void* to, void* data, std::size_t bytes) {
  auto* buffer = static_cast<Buffer*>(to);
  std::uint64_t kind = 0;
  std::memcpy(&kind, data, std::min(bytes, sizeof kind));
  if (kind == COWSHED_PYTHON_CODE_RECORD) buffer->python_.add_code(data, bytes);
  else if (kind == COWSHED_PYTHON_TYPE_RECORD) buffer->python_.add_type(data, bytes);
  else buffer->receive_sample(data, bytes);
  buffer->consumed_bytes_ += bytes + BPF_RINGBUF_HDR_SZ;
  return buffer->consumed_bytes_ < buffer->buffer_bytes_ ? 0 : kEnough;
}

Expected<void> SampleReader::Buffer::open(const Programs& programs) {
  if (!ring_) return system_error("opening the BPF ring buffer of samples", errno);
  bpf_map_info info = {};
  __u32 size = sizeof info;
  if (bpf_obj_get_info_by_fd(programs.samples_map(), &info, &size) != 0)
    return system_error("sizing the BPF ring buffer of samples", errno);
  buffer_bytes_ = info.max_entries;
  if (!programs.takes_samples()) return {};
  TRY(arrived_, open_event());
  TRY(stop_, open_event());
  epoll_event event{.events = EPOLLIN, .data = {}};
  if (::epoll_ctl(fd(), EPOLL_CTL_ADD, arrived_.get(), &event) != 0)
    return system_error("waiting for samples", errno);
  start_thread();
  return {};
}

// The program's signals are for its other threads.
void SampleReader::Buffer::start_thread() {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { keep_room(); });
  } catch (const std::system_error&) {  // then samples are fewer in a burst
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

int SampleReader::Buffer::consume() {
  consumed_bytes_ = 0;
  return ring_buffer__consume(ring_.get());
}

void SampleReader::Buffer::keep_room() {
  constexpr sched_param kLowest{.sched_priority = 1};
  constexpr std::size_t kMostSamples = 16'384;  // some 140 MB
  constexpr int kPauseMs = 5;
  ::pthread_setschedparam(::pthread_self(), SCHED_RR, &kLowest);
  const std::unique_ptr<ring_buffer, void (*)(ring_buffer*)> alarms(
      ring_buffer__new(
          alarms_map_, [](void*, void*, std::size_t) { return 0; }, nullptr, nullptr),
      ring_buffer__free);
  std::array<pollfd, 2> events{{{stop_.get(), POLLIN, 0}, {alarms_map_, POLLIN, 0}}};
  while (alarms && ::poll(events.data(), events.size(), -1) > 0 && events[0].revents == 0) {
    {
      const std::lock_guard lock(mutex_);
      if (samples_.size() < kMostSamples) consume();
      if (!samples_.empty()) ::eventfd_write(arrived_.get(), 1);
    }
    ring_buffer__consume(alarms.get());
    ::poll(events.data(), 1, kPauseMs);
  }
}

Expected<std::vector<CopySample>> SampleReader::Buffer::take() {
  std::vector<CopySample> taken;
  {
    const std::lock_guard lock(mutex_);
    eventfd_t event = 0;
    if (arrived_) ::eventfd_read(arrived_.get(), &event);
    const int consumed = consume();
    if (consumed < 0 && consumed != kEnough)
      return system_error("reading the BPF ring buffer of samples", -consumed);
    taken = std::exchange(samples_, {});
  }
  received_ += static_cast<std::uint64_t>(std::ranges::count_if(
      taken, [](const CopySample& sample) { return sample.copy_class != CopyClass::fresh; }));
  return taken;
}

Expected<SampleCounts> SampleReader::Buffer::counts() const {
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

SampleReader::SampleReader(std::unique_ptr<Buffer> buffer) : buffer_(std::move(buffer)) {}
SampleReader::SampleReader(SampleReader&&) noexcept = default;
SampleReader& SampleReader::operator=(SampleReader&&) noexcept = default;
SampleReader::~SampleReader() = default;

Expected<SampleReader> SampleReader::open(const Programs& programs) {
  auto buffer = std::make_unique<Buffer>(programs);
  TRY_VOID(buffer->open(programs));
  return SampleReader(std::move(buffer));
}

Expected<std::vector<CopySample>> SampleReader::take() { return buffer_->take(); }

int SampleReader::fd() const { return buffer_->fd(); }

Expected<SampleCounts> SampleReader::counts() const { return buffer_->counts(); }

}  // namespace cowshed
