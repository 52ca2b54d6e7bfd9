#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <memory>
#include <sched.h>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attacks.h"

namespace cowshed::test {
namespace {

iovec words_of(const Target& target) { return {target.address, kPayloadSize}; }

// One request at a time, without liburing.
class Ring {
 public:
  Ring() {
    io_uring_params params = {};
    fd_ = static_cast<int>(need(syscall(SYS_io_uring_setup, 1, &params), "io_uring_setup"));
    submission_ =
        map(params.sq_off.array + params.sq_entries * sizeof(std::uint32_t), IORING_OFF_SQ_RING);
    completion_ =
        map(params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe), IORING_OFF_CQ_RING);
    entry_ = reinterpret_cast<io_uring_sqe*>(map(sizeof(io_uring_sqe), IORING_OFF_SQES));
    offsets_ = params;
  }

  int register_buffer(const iovec& buffer) const {
    return error_of(syscall(SYS_io_uring_register, fd_, IORING_REGISTER_BUFFERS, &buffer, 1));
  }

  // The errno, or 0.
  int run(unsigned char operation, int fd, const void* buffer, off_t offset) {
    return run(operation, fd, reinterpret_cast<std::uintptr_t>(buffer), kPayloadSize, offset);
  }

  int punch(int fd, off_t offset, std::size_t size) {
    return run(IORING_OP_FALLOCATE, fd, size, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset);
  }

 private:
  int run(unsigned char operation, int fd, std::uint64_t address, std::uint32_t length,
          off_t offset) {
    *entry_ = {};
    entry_->opcode = operation;
    entry_->fd = fd;
    entry_->addr = address;
    entry_->len = length;
    entry_->off = static_cast<std::uint64_t>(offset);
    at(submission_, offsets_.sq_off.array) = 0;
    at(submission_, offsets_.sq_off.tail) += 1;
    need(syscall(SYS_io_uring_enter, fd_, 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0),
         "io_uring_enter");
    const auto* done = reinterpret_cast<io_uring_cqe*>(completion_ + offsets_.cq_off.cqes);
    return done->res < 0 ? -done->res : 0;
  }

  std::byte* map(std::size_t size, off_t what) const {
    void* mapped =
        raw_mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, what);
    need(mapped == MAP_FAILED ? -1 : 0, "mapping an io_uring");
    return static_cast<std::byte*>(mapped);
  }

  static std::atomic_ref<std::uint32_t> at(std::byte* ring, std::size_t offset) {
    return std::atomic_ref(*reinterpret_cast<std::uint32_t*>(ring + offset));
  }

  int fd_ = -1;
  std::byte* submission_ = nullptr;
  std::byte* completion_ = nullptr;
  io_uring_sqe* entry_ = nullptr;
  io_uring_params offsets_ = {};
};

int read_fixed(const Target& target) {
  Ring ring;
  const int error = ring.register_buffer(words_of(target));
  return error != 0 ? error : ring.run(IORING_OP_READ_FIXED, payload_file(), target.address, 0);
}

// Past the page cache, straight from the disk.
int read_direct(const Target& target) {
  const auto fd = static_cast<int>(
      need(open("/tmp", O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600), "O_DIRECT on /tmp"));
  need(pwrite(fd, payload(), kPayloadSize, 0), "filling a file past the page cache");
  const iovec to = words_of(target);
  return error_of(syscall(SYS_preadv, fd, &to, 1, 0L, 0L));
}

int receive(const Target& target) {
  std::array<int, 2> ends{};
  need(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends.data()), "socketpair");
  need(send(ends[1], payload(), kPayloadSize, 0), "send");
  iovec to = words_of(target);
  msghdr message = {};
  message.msg_iov = &to;
  message.msg_iovlen = 1;
  return error_of(syscall(SYS_recvmsg, ends[0], &message, 0));
}

// A task in the attacker's memory, which has ended when this returns; it runs alone meanwhile.
int run_task(int flags, int (*body)(void*), const Target& target, std::byte* word) {
  alignas(64) static std::array<std::byte, 65536> stack{};
  const pid_t pid =
      clone(body, stack.data() + stack.size(), CLONE_VM | CLONE_VFORK | SIGCHLD | flags,
            const_cast<Target*>(&target), word, nullptr, word);
  if (pid == -1) {
    return errno;
  }
  need(waitpid(pid, nullptr, 0), "waitpid");
  return 0;
}

template <int Flag>
int have_thread_id_written(const Target& target) {
  return run_task(
      Flag, [](void*) { return static_cast<int>(syscall(SYS_exit, 0)); }, target,
      target.address + 64);
}

bool number_is_among_the_words = false;

// The kernel marks a lock as its owner's who died, if the word is that thread's number: so the
// arena has one with each.
int die_with_a_robust_lock(void* context) {
  const auto& target = *static_cast<const Target*>(context);
  const auto self = static_cast<std::uint32_t>(syscall(SYS_gettid));
  number_is_among_the_words =
      self >= target.first_word && self - target.first_word < target.size / sizeof self;
  if (!number_is_among_the_words) {
    return static_cast<int>(syscall(SYS_exit, 0));
  }
  static robust_list lock;
  static robust_list_head head;
  lock.next = &head.list;
  head.list.next = &lock;
  head.futex_offset = reinterpret_cast<std::intptr_t>(target.address) +
                      static_cast<std::intptr_t>((self - target.first_word) * sizeof self) -
                      reinterpret_cast<std::intptr_t>(&lock);
  head.list_op_pending = nullptr;
  syscall(SYS_set_robust_list, &head, sizeof head);
  return static_cast<int>(syscall(SYS_exit, 0));
}

int exit_with_a_robust_list(const Target& target) {
  const int error = run_task(0, &die_with_a_robust_lock, target, nullptr);
  if (error == 0 && !number_is_among_the_words) {
    throw std::runtime_error("the thread's number is not among the words");
  }
  return error;
}

// glibc has this thread's own registered.
int move_rseq(const Target& target) {
  constexpr unsigned kSize = 32;
  need(__rseq_size == 0 ? (errno = ENOSYS, -1) : 0, "rseq");
  auto* own = static_cast<std::byte*>(__builtin_thread_pointer()) + __rseq_offset;
  need(syscall(SYS_rseq, own, kSize, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), "unregistering rseq");
  const int error = error_of(syscall(SYS_rseq, target.address, kSize, 0, RSEQ_SIG));
  sched_yield();
  return error;
}

}  // namespace

std::function<int()> hold_for_a_later_write(const Target& target) {
  auto ring = std::make_shared<Ring>();
  const int error = ring->register_buffer(words_of(target));
  need(error == 0 ? 0 : (errno = error, -1), "registering a buffer");
  return [ring, to = target.address] {
    return ring->run(IORING_OP_READ_FIXED, payload_file(), to, 0);
  };
}

std::vector<Attack> attacks_through_the_kernel() {
  const Outcomes own = {allowed(Effect::own_view)};
  const Outcomes nothing = {allowed(Effect::nothing)};
  const Outcomes all = {allowed(Effect::all)};
  const Outcomes fault = {refused(EFAULT)};
  const Outcomes sealed = {refused(EPERM)};
  return {
      {"read into it",
       [](const Target& t) {
         return error_of(syscall(SYS_read, payload_file(), t.address, kPayloadSize));
       },
       fault, own, all},
      {"preadv into it",
       [](const Target& t) {
         const iovec to = words_of(t);
         return error_of(syscall(SYS_preadv, payload_file(), &to, 1, 0L, 0L));
       },
       fault, own, all},
      {"read with O_DIRECT into it", &read_direct, fault, own, all},
      {"recvmsg into it", &receive, fault, own, all},
      {"vmsplice from a pipe into it",
       [](const Target& t) {
         const iovec to = words_of(t);
         return error_of(syscall(SYS_vmsplice, payload_pipe(), &to, 1UL, 0));
       },
       fault, own, all},
      {"getrandom into it",
       [](const Target& t) { return error_of(syscall(SYS_getrandom, t.address, 256, 0)); }, fault,
       own, all},
      {"io_uring, read into it",
       [](const Target& t) { return Ring().run(IORING_OP_READ, payload_file(), t.address, 0); },
       fault, own, all},
      {"io_uring, read into it as a registered buffer", &read_fixed, fault, own, all},
      {"io_uring, write to the descriptor",
       [](const Target& t) { return Ring().run(IORING_OP_WRITE, t.fd, payload(), t.offset); },
       sealed, sealed, all},
      {"io_uring, fallocate a hole",
       [](const Target& t) { return Ring().punch(t.fd, t.offset, t.size); }, sealed, sealed, all},
      {"futex FUTEX_WAKE_OP on a word",
       [](const Target& t) {
         std::uint32_t own_word = 0;
         return error_of(syscall(SYS_futex, &own_word, FUTEX_WAKE_OP, 0, nullptr, t.address,
                                 FUTEX_OP(FUTEX_OP_SET, 0x7ee, FUTEX_OP_CMP_EQ, 0)));
       },
       fault, own, all},
      {"clone with CLONE_CHILD_SETTID", &have_thread_id_written<CLONE_CHILD_SETTID>, nothing, own,
       all},
      {"clone with CLONE_PARENT_SETTID", &have_thread_id_written<CLONE_PARENT_SETTID>, nothing, own,
       all},
      {"exit with clear_child_tid", &have_thread_id_written<CLONE_CHILD_CLEARTID>, nothing, own,
       all},
      {"exit with a robust list", &exit_with_a_robust_list, nothing, own, all},
      {"rseq", &move_rseq, fault, own, all},
  };
}

}  // namespace cowshed::test
