#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <dirent.h>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <limits>
#include <linux/perf_event.h>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/fault_sampler.h>
#include <cowshed/cow/proc_files.h>
#include <cowshed/cow/process_copies.h>

namespace cowshed::cow {
namespace {

// Powers of two, of the kernel's memory.
constexpr std::size_t kMostBytes = 2 << 20;  // for the stacks on one CPU
constexpr std::size_t kAllBytes = 32 << 20;  // on all CPUs
constexpr std::size_t kLeastBytes = 32 << 10;
constexpr std::size_t kPlacesShare = 4;  // a quarter, for places
constexpr std::uint32_t kStackBytes = 8192;

// Bits of <asm/perf_regs.h> in their order, which that of the values in a record is, by DWARF's.
constexpr unsigned kIpBit = 8;
constexpr unsigned kR8Bit = 16;
constexpr std::uint64_t kIpMask = 1ULL << kIpBit;
constexpr std::uint64_t kAllMask = 0x1ff | 0xffULL << kR8Bit;
constexpr std::array<Register, kRegisters> kInRecord = {
    Register::rax, Register::rbx, Register::rcx, Register::rdx, Register::rsi, Register::rdi,
    Register::rbp, Register::rsp, Register::rip, Register::r8,  Register::r9,  Register::r10,
    Register::r11, Register::r12, Register::r13, Register::r14, Register::r15};

enum class Kind : std::uint8_t { places, stacks };

perf_event_attr attributes(Kind kind, bool with_kernel) {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_SOFTWARE;
  // Places of all faults; stacks of minor ones, as most copies are.  Not both by the same event:
  // the samples of two that differ in sample_type get each other's sizes (Linux 6.3 and later,
  // perf_sample_data::dyn_size).
  attr.config = kind == Kind::places ? PERF_COUNT_SW_PAGE_FAULTS : PERF_COUNT_SW_PAGE_FAULTS_MIN;
  attr.sample_period = 1;  // never throttled: perf_swevent_event()
  attr.sample_type = PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR | PERF_SAMPLE_REGS_USER;
  attr.sample_regs_user = kIpMask;
  if (kind == Kind::stacks) {
    attr.sample_type |= PERF_SAMPLE_STACK_USER;
    attr.sample_regs_user = kAllMask;
    attr.sample_stack_user = kStackBytes;
  }
  attr.read_format = PERF_FORMAT_LOST;
  attr.inherit = 1;
  attr.inherit_thread = 1;
  attr.exclude_kernel = with_kernel ? 0 : 1;
  attr.exclude_hv = 1;
  attr.use_clockid = 1;
  attr.clockid = CLOCK_MONOTONIC;
  attr.watermark = 1;  // nobody waits for it
  attr.wakeup_watermark = std::numeric_limits<std::uint32_t>::max();
  return attr;
}

int open_event(Kind kind, bool with_kernel, pid_t tid, int cpu) {
  perf_event_attr attr = attributes(kind, with_kernel);
  return static_cast<int>(
      ::syscall(SYS_perf_event_open, &attr, tid, cpu, -1, PERF_FLAG_FD_CLOEXEC));
}

std::string paranoid() {
  std::ifstream file("/proc/sys/kernel/perf_event_paranoid");
  std::string value;
  file >> value;
  return value;
}

// What would help, as far as that shows.
std::string help(int error) {
  const std::string level = paranoid();
  int value = 0;
  std::from_chars(level.data(), level.data() + level.size(), value);
  if (level.empty() || error == ENOSYS) return "; this kernel, or container, has no perf events";
  if (error == EINVAL) return "; needs Linux 6.1";
  if (error != EACCES && error != EPERM) return "";
  if (value > 2) {
    return fmt::format("; kernel.perf_event_paranoid is {}: needs 2, or CAP_PERFMON", level);
  }
  return fmt::format(
      "; not by kernel.perf_event_paranoid, which is {}, but by a seccomp filter (a container's?) "
      "or "
      "a security module",
      level);
}

std::set<pid_t> threads_of(pid_t pid) {
  std::set<pid_t> threads;
  DIR* folder = ::opendir(ProcFiles().path(pid, "task").c_str());
  if (folder == nullptr) return threads;
  while (const dirent* entry = ::readdir(folder)) {  // NOLINT(concurrency-mt-unsafe): its own
    const std::string_view name = static_cast<const char*>(entry->d_name);
    pid_t tid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), tid).ec == std::errc()) {
      threads.insert(tid);
    }
  }
  ::closedir(folder);
  return threads;
}

bool contains(const PageRanges& pages, std::uint64_t address) {
  const auto& ranges = pages.ranges();
  const auto after =
      std::upper_bound(ranges.begin(), ranges.end(), address,
                       [](std::uint64_t value, const PageRange& r) { return value < r.begin; });
  return after != ranges.begin() && address < std::prev(after)->end;
}

// The events of one kind on one CPU, and their common buffer.
class Buffer {
 public:
  explicit Buffer(Kind kind) : kind_(kind) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    // A process that was forked may hold the descriptors: they end when it has closed them, too.
    // And at the buffer's address it may have mapped something else.
    if (::getpid() == owner_) {
      for (const int event : events_) ::ioctl(event, PERF_EVENT_IOC_DISABLE, 0);
      if (memory_ != nullptr) ::munmap(memory_, bytes_ + kPageSize);
    }
    for (const int event : events_) ::close(event);
  }

  Kind kind() const { return kind_; }

  // Takes the event; a power of two of bytes, or less where so much is not to be had.
  Expected<void> map(int event, std::size_t bytes) {
    events_.push_back(event);
    for (; bytes >= kLeastBytes; bytes /= 2) {
      void* memory =
          ::mmap(nullptr, bytes + kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, event, 0);
      if (memory == MAP_FAILED) continue;
      memory_ = static_cast<char*>(memory);
      bytes_ = bytes;
      return {};
    }
    auto failed = system_error("memory for perf events", errno);
    failed.value().message +=
        "; beyond kernel.perf_event_mlock_kb for each CPU, and "
        "RLIMIT_MEMLOCK for each process, it needs CAP_IPC_LOCK";
    return failed;
  }

  // Another thread's.
  Expected<void> add(int event) {
    events_.push_back(event);
    if (::ioctl(event, PERF_EVENT_IOC_SET_OUTPUT, events_.front()) == 0) return {};
    return system_error("PERF_EVENT_IOC_SET_OUTPUT", errno);
  }

  std::uint64_t lost() const {
    std::uint64_t sum = 0;
    for (const int event : events_) {
      std::array<std::uint64_t, 2> value_and_lost{};
      if (::read(event, value_and_lost.data(), sizeof value_and_lost) == sizeof value_and_lost) {
        sum += value_and_lost[1];
      }
    }
    return sum;
  }

  // Nothing is ever taken out, so what is written when it is full is lost, and it never wraps.
  template <class Visit>
  void for_each(const Visit& visit) const {
    const auto* header = reinterpret_cast<const perf_event_mmap_page*>(memory_);
    const std::uint64_t head = __atomic_load_n(&header->data_head, __ATOMIC_ACQUIRE);
    const char* records = memory_ + header->data_offset;
    for (std::uint64_t at = 0; at + sizeof(perf_event_header) <= std::min(head, bytes_);) {
      perf_event_header record{};
      std::memcpy(&record, records + at, sizeof record);
      if (record.size < sizeof record || at + record.size > bytes_) return;
      if (record.type == PERF_RECORD_SAMPLE) visit(record, records + at + sizeof record);
      at += record.size;
    }
  }

 private:
  Kind kind_;
  pid_t owner_ = ::getpid();
  std::vector<int> events_;
  char* memory_ = nullptr;
  std::uint64_t bytes_ = 0;
};

// Reads words of a record, 0 beyond its end.
class Reader {
 public:
  Reader(const char* at, std::size_t bytes) : at_(at), left_(bytes) {}

  std::uint64_t word() {
    std::uint64_t word = 0;
    const std::size_t size = std::min(left_, sizeof word);
    std::memcpy(&word, skip(size), size);
    return word;
  }
  const char* skip(std::size_t bytes) {
    left_ -= bytes;
    return std::exchange(at_, at_ + bytes);
  }
  std::size_t left() const { return left_; }

 private:
  const char* at_;
  std::size_t left_;
};

// As <linux/perf_event.h> documents PERF_RECORD_SAMPLE, of attributes().
CopySample parse(Kind kind, const perf_event_header& record, const char* body) {
  Reader reader(body, record.size - sizeof record);
  CopySample sample;
  sample.user_mode = (record.misc & PERF_RECORD_MISC_CPUMODE_MASK) != PERF_RECORD_MISC_KERNEL;
  sample.time_ns = reader.word();
  sample.address = reader.word();
  const auto set = [&](Register name) {
    sample.registers[static_cast<std::size_t>(name)] = reader.word();  // NOLINT(*-array-index)
  };
  if (reader.word() == PERF_SAMPLE_REGS_ABI_NONE) return sample;
  if (kind == Kind::places) {
    set(Register::rip);
    return sample;
  }
  for (const Register name : kInRecord) set(name);
  const std::uint64_t room = reader.word();
  if (room > reader.left()) return sample;
  const char* const stack = reader.skip(room);
  sample.stack.assign(stack, stack + std::min(reader.word(), room));
  return sample;
}

}  // namespace

struct FaultSampler::Events {
  bool with_kernel = true;
  int cpus = static_cast<int>(::sysconf(_SC_NPROCESSORS_CONF));
  std::vector<std::unique_ptr<Buffer>> buffers;
  std::map<std::pair<int, Kind>, Buffer*> by_cpu;

  Expected<void> open(pid_t tid);
  Expected<void> adopt(int event, int cpu, Kind kind);
};

Expected<void> FaultSampler::Events::adopt(int event, int cpu, Kind kind) {
  Buffer*& buffer = by_cpu[{cpu, kind}];
  if (buffer != nullptr) return buffer->add(event);
  buffer = buffers.emplace_back(std::make_unique<Buffer>(kind)).get();
  std::size_t bytes = kMostBytes;
  while (bytes * static_cast<std::size_t>(cpus) > kAllBytes && bytes / 2 >= kLeastBytes) bytes /= 2;
  return buffer->map(event, kind == Kind::stacks ? bytes : bytes / kPlacesShare);
}

Expected<void> FaultSampler::Events::open(pid_t tid) {
  for (int cpu = 0; cpu < cpus; ++cpu) {
    for (const Kind kind : {Kind::places, Kind::stacks}) {
      int event = open_event(kind, with_kernel, tid, cpu);
      if (event < 0 && errno == EACCES && with_kernel && buffers.empty()) {
        with_kernel = false;
        event = open_event(kind, with_kernel, tid, cpu);
      }
      if (event < 0) {
        const int error = errno;
        if (error == ESRCH) return {};  // the thread has ended
        if (error == ENODEV) continue;  // the CPU is offline
        auto failed = system_error("perf_event_open", error);
        failed.value().message += help(error);
        return failed;
      }
      if (auto good = adopt(event, cpu, kind); !good) return good;
    }
  }
  return {};
}

FaultSampler::FaultSampler(std::unique_ptr<Events> events) : events_(std::move(events)) {}
FaultSampler::FaultSampler(FaultSampler&&) noexcept = default;
FaultSampler& FaultSampler::operator=(FaultSampler&&) noexcept = default;
FaultSampler::~FaultSampler() = default;

Expected<FaultSampler> FaultSampler::begin(pid_t pid) {
  auto events = std::make_unique<Events>();
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  std::set<pid_t> seen;
  // A thread that another starts after that one's events are open has them, too; one that was
  // started before is found when they are listed again.
  for (bool is_new = true; std::exchange(is_new, false);) {
    for (const pid_t tid : threads_of(pid)) {
      if (!seen.insert(tid).second) continue;
      is_new = true;
      if (seen.size() * static_cast<std::size_t>(events->cpus) * 2 > files.rlim_cur / 2) {
        return make_error(
            ErrorCode::system_call,
            fmt::format("perf events for {} threads or more on {} CPUs would take over half of the "
                        "descriptors that RLIMIT_NOFILE allows",
                        seen.size(), events->cpus));
      }
      if (auto good = events->open(tid); !good) return tl::make_unexpected(std::move(good.error()));
    }
  }
  return FaultSampler(std::move(events));
}

bool FaultSampler::sees_kernel() const { return events_->with_kernel; }

std::vector<CopySample> FaultSampler::last_on(const PageRanges& pages) const {
  struct Last {
    std::optional<CopySample> place;
    std::optional<CopySample> stack;
  };
  std::map<std::uint64_t, Last> found;
  for (const auto& buffer : events_->buffers) {
    buffer->for_each([&](const perf_event_header& record, const char* at) {
      CopySample sample = parse(buffer->kind(), record, at);
      if (!contains(pages, sample.address)) return;
      Last& last = found[sample.address / kPageSize];
      auto& kept = buffer->kind() == Kind::places ? last.place : last.stack;
      if (!kept || kept->time_ns < sample.time_ns) kept = std::move(sample);
    });
  }
  // Of one fault that of the place comes first; if a later one has no stack, it is by its code.
  const auto is_of = [](const CopySample& stack, const CopySample& place) {
    return stack.time_ns > place.time_ns || stack[Register::rip] == place[Register::rip];
  };
  std::vector<CopySample> result;
  result.reserve(found.size());
  for (auto& [page, last] : found) {
    const bool has_stack = last.stack && (!last.place || is_of(*last.stack, *last.place));
    result.push_back(std::move(has_stack ? *last.stack : *last.place));
  }
  return result;
}

std::uint64_t FaultSampler::lost() const {
  std::uint64_t sum = 0;
  for (const auto& buffer : events_->buffers) {
    if (buffer->kind() == Kind::places) sum += buffer->lost();
  }
  return sum;
}

}  // namespace cowshed::cow
