#include "fault_counter.h"

#include <linux/perf_event.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace cowshed::bench {
namespace {

int open_event() {
  perf_event_attr attributes{};
  attributes.type = PERF_TYPE_SOFTWARE;
  attributes.size = sizeof attributes;
  attributes.config = PERF_COUNT_SW_PAGE_FAULTS;
  attributes.exclude_kernel = 1;
  attributes.exclude_hv = 1;
  return static_cast<int>(
      syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
}

std::uint64_t rusage_faults() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return static_cast<std::uint64_t>(usage.ru_minflt + usage.ru_majflt);
}

}  // namespace

FaultCounter::FaultCounter() : fd_(open_event()) {
  if (fd_ < 0) rusage_start_ = rusage_faults();
}

FaultCounter::~FaultCounter() {
  if (fd_ >= 0) close(fd_);
}

std::uint64_t FaultCounter::count() const {
  if (fd_ < 0) return rusage_faults() - rusage_start_;
  std::uint64_t value = 0;
  return read(fd_, &value, sizeof value) == sizeof value ? value : 0;
}

std::string FaultCounter::source() {
  const FaultCounter probe;
  return probe.fd_ < 0 ? "getrusage, as perf_event_open is refused: with those of system calls"
                       : "perf_event_open's PAGE_FAULTS, from user mode";
}

}  // namespace cowshed::bench
