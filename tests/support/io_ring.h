#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace cowshed::test {

// An io_uring for one request at a time, without liburing.  It allocates nothing.
class IoRing {
 public:
  using Fail = void (*)(const char* call);

  // `fail` does not return.  It is called with the name of a call that is refused.
  explicit IoRing(Fail fail, unsigned flags = 0) : fail_(fail) {
    params_.flags = flags;
    params_.sq_thread_idle = 1;  // ms
    fd_ = static_cast<int>(syscall(SYS_io_uring_setup, 1, &params_));
    if (fd_ < 0) fail_("io_uring_setup");
    const std::size_t completions_end =
        params_.cq_off.cqes + params_.cq_entries * sizeof(io_uring_cqe);
    rings_ = map(std::max(completions_end, params_.sq_off.array + sizeof(std::uint32_t)),
                 IORING_OFF_SQ_RING);
    entry_ = reinterpret_cast<io_uring_sqe*>(map(sizeof(io_uring_sqe), IORING_OFF_SQES));
  }

  int fd() const { return fd_; }

  // -1 and errno, or the number of bytes.
  long run(std::uint8_t operation, int file, const void* buffer, std::uint32_t bytes,
           off_t offset = 0) {
    *entry_ = {};
    entry_->opcode = operation;
    entry_->fd = file;
    entry_->addr = reinterpret_cast<std::uintptr_t>(buffer);
    entry_->len = bytes;
    entry_->off = static_cast<std::uint64_t>(offset);
    word(params_.sq_off.tail) += 1;
    if (syscall(SYS_io_uring_enter, fd_, 1, 1, IORING_ENTER_SQ_WAKEUP | IORING_ENTER_GETEVENTS,
                nullptr, 0) < 0) {
      fail_("io_uring_enter");
    }
    const auto* completions = reinterpret_cast<io_uring_cqe*>(rings_ + params_.cq_off.cqes);
    const std::int32_t result = completions[word(params_.cq_off.head)++ % params_.cq_entries].res;
    return result < 0 ? (errno = -result, -1) : result;
  }

 private:
  std::byte* map(std::size_t size, off_t what) const {
    void* mapped =
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, what);
    if (mapped == MAP_FAILED) fail_("mmap of an io_uring");
    return static_cast<std::byte*>(mapped);
  }
  std::atomic_ref<std::uint32_t> word(std::uint32_t offset) const {
    return std::atomic_ref(*reinterpret_cast<std::uint32_t*>(rings_ + offset));
  }

  Fail fail_;
  io_uring_params params_ = {};
  int fd_ = -1;
  std::byte* rings_ = nullptr;
  io_uring_sqe* entry_ = nullptr;
};

}  // namespace cowshed::test
