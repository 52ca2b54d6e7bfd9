#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <sys/ioctl.h>

#include "steps.h"

// Stores that are not let through: a collector's barriers, and mistakes.

namespace ground_truth {
namespace {

char* page_around(siginfo_t* info) {
  auto* at = static_cast<char*>(info->si_addr);
  return at - (reinterpret_cast<std::uintptr_t>(at) & (kPage - 1));
}

// The handlers open one page of what was closed, and the store is tried again.
void reopen(int, siginfo_t* info, void*) {
  mprotect(page_around(info), kPage, PROT_READ | PROT_WRITE);
}

void map_there(int, siginfo_t* info, void*) {
  char* page = page_around(info);
  if (mmap(page, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
      MAP_FAILED) {
    fail("mmap");
  }
  madvise(page, kPage, MADV_NOHUGEPAGE);  // many of them are one mapping
}

void on_violation(void (*handler)(int, siginfo_t*, void*), int signal = SIGSEGV) {
  struct sigaction action = {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO;
  sigaction(signal, &action, nullptr);
}

void stores_to_closed(int protection) {
  on_violation(reopen);
  in_child([=] {
    char* pages = written_private_pages();
    mprotect(pages, bytes(), protection);
    write_all(pages);
  });
}

KIND(closed_to_writes) { stores_to_closed(PROT_READ); }
KIND(closed_to_all) { stores_to_closed(PROT_NONE); }

KIND(closed_and_shared) {
  char* pages = written_private_pages();
  on_violation(reopen);
  in_child([=] {
    mprotect(pages, bytes(), PROT_READ);
    write_all(pages);
  });
}

KIND(not_inherited) {
  char* pages = written_private_pages();
  madvise(pages, bytes(), MADV_DONTFORK);
  on_violation(map_there);
  in_child([=] { write_all(pages); });
}

constexpr int kInstallGuard = 102;  // MADV_GUARD_INSTALL of Linux 6.13
constexpr int kRemoveGuard = 103;

void remove_guard(int, siginfo_t* info, void*) {
  if (madvise(page_around(info), kPage, kRemoveGuard) != 0) fail("MADV_GUARD_REMOVE");
}

KIND(guarded) {
  on_violation(remove_guard);
  in_child([] {
    char* pages = private_pages();
    if (madvise(pages, bytes(), kInstallGuard) != 0) fail("MADV_GUARD_INSTALL");
    write_all(pages);
  });
}

sigjmp_buf escape;

void jump_out(int, siginfo_t*, void*) { siglongjmp(escape, 1); }

// Stores that jump out.
void fail_all(char* pages) {
  for (static long i = 0; i <= count; ++i)  // a jump leaves a static variable as it was
    if (sigsetjmp(escape, 1) == 0) store(page_of(pages, i));
}

// Addresses of the kernel.
KIND(kernel_address) {
  on_violation(jump_out);
  in_child([] { fail_all(reinterpret_cast<char*>(0xffff'8880'0000'0000)); });
}

// Private pages of a file that grows up to each, and then has none of them any more.
void pages_beyond(int file) {
  on_violation(jump_out, SIGBUS);
  in_child([=] {
    char* pages = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, file);
    for (long i = 0; i < count; ++i) {
      if (ftruncate(file, (i + 1) * static_cast<long>(kPage)) != 0) fail("ftruncate");
      store(page_of(pages, i));
    }
    if (ftruncate(file, 0) != 0) fail("ftruncate");
    fail_all(pages);
  });
}

KIND(beyond_disk_file) { pages_beyond(disk_file()); }
KIND(beyond_memory_file) { pages_beyond(memory_file("plain")); }

// Shared pages of a file that has none of them any more.
void beyond_shared(int file) {
  if (ftruncate(file, 0) != 0) fail("ftruncate");
  on_violation(jump_out, SIGBUS);
  in_child([=] { fail_all(map(PROT_READ | PROT_WRITE, MAP_SHARED, file)); });
}

KIND(beyond_shared_disk_file) { beyond_shared(disk_file()); }
KIND(beyond_shared_memory_file) { beyond_shared(memory_file("plain")); }

// The kernel first tries with page faults disabled, which fails, and then walks the page tables.
KIND(futex_operation) {
  char* pages = written_private_pages();
  in_child([=] {
    for (long i = 0; i < count; ++i) {
      auto* word = reinterpret_cast<std::uint32_t*>(page_of(pages, i));
      if (syscall(SYS_futex, word, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0, word,
                  FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0)) < 0) {
        fail("futex");
      }
    }
  });
}

// A thread of the measured process that answers its userfaultfd, N + 1 times: the last page is
// written, too, so that the first answer's costs are the same for N = 0.
class Handler {
 public:
  // Of pages that are `distance` apart.
  Handler(char* pages, std::size_t distance, std::uint64_t mode) : mode_(mode) {
    fd_ = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
    uffdio_api api = {.api = UFFD_API, .features = 0, .ioctls = 0};
    uffdio_register range = {};
    range.range = {reinterpret_cast<std::uintptr_t>(pages),
                   static_cast<std::size_t>(count + 1) * distance};
    range.mode = mode;
    if (fd_ < 0 || ioctl(fd_, UFFDIO_API, &api) != 0 || ioctl(fd_, UFFDIO_REGISTER, &range) != 0)
      fail("userfaultfd");
  }

  void protect(char* page) { set_protection(page, UFFDIO_WRITEPROTECT_MODE_WP); }

  // `before_answer` is called with the number of the answer.
  void start(void (*before_answer)(long)) {
    before_answer_ = before_answer;
    const auto answer_all = [](void* self) -> void* {
      static_cast<Handler*>(self)->answer();
      return nullptr;
    };
    thread_ = start_thread(answer_all, this);
  }
  void join() { pthread_join(thread_, nullptr); }

 private:
  void set_protection(char* page, std::uint64_t mode) const {
    uffdio_writeprotect request = {};
    request.range = {reinterpret_cast<std::uintptr_t>(page), kPage};
    request.mode = mode;
    if (ioctl(fd_, UFFDIO_WRITEPROTECT, &request) != 0) fail("UFFDIO_WRITEPROTECT");
  }

  void answer() {
    alignas(kPage) static char source[kPage];
    for (long i = 0; i <= count; ++i) {
      uffd_msg message = {};
      if (read(fd_, &message, sizeof message) != sizeof message) fail("userfaultfd");
      before_answer_(i);
      const std::uintptr_t page = message.arg.pagefault.address & ~(kPage - 1);
      if (mode_ == UFFDIO_REGISTER_MODE_WP) {
        set_protection(reinterpret_cast<char*>(page), 0);
      } else {
        uffdio_copy copy = {page, reinterpret_cast<std::uintptr_t>(source), kPage, 0, 0};
        if (ioctl(fd_, UFFDIO_COPY, &copy) != 0) fail("UFFDIO_COPY");
      }
    }
  }

  int fd_ = -1;
  std::uint64_t mode_;
  void (*before_answer_)(long) = nullptr;
  pthread_t thread_{};
};

KIND(write_protected_by_user) {
  in_child([] {
    char* pages = private_pages();
    Handler handler(pages, kPage, UFFDIO_REGISTER_MODE_WP);
    for (long i = 0; i <= count; ++i) {
      store(page_of(pages, i));
      handler.protect(page_of(pages, i));
    }
    handler.start([](long) {});
    for (long i = 0; i <= count; ++i) store(page_of(pages, i));
    handler.join();
  });
}

KIND(missing_for_user) {
  in_child([] {
    char* pages = private_pages();
    Handler handler(pages, kPage, UFFDIO_REGISTER_MODE_MISSING);
    handler.start([](long) {});
    for (long i = 0; i <= count; ++i) store(page_of(pages, i));
    handler.join();
  });
}

// Not missing: the file has them.
KIND(present_for_user) {
  const int fd = filled_memory_file("plain");
  in_child([=] {
    char* pages = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
    const Handler handler(pages, kPage, UFFDIO_REGISTER_MODE_MISSING);
    write_all(pages);
  });
}

// While the store waits, its CPU sees a huge page being split that it has nothing to do with.
char* to_split = nullptr;

KIND(split_while_waiting) {
  one_down([] {
    to_split = huge_pages();
    touch_each(to_split, kHuge);
    char* pages = small_pages(static_cast<std::size_t>(count + 1) * kHuge);
    Handler handler(pages, kHuge, UFFDIO_REGISTER_MODE_WP);
    for (long i = 0; i <= count; ++i) store(pages + static_cast<std::size_t>(i) * kHuge);
    const Sharer sharer;
    for (long i = 0; i <= count; ++i) handler.protect(pages + static_cast<std::size_t>(i) * kHuge);
    measured([&] {
      handler.start([](long i) {
        if (i < count) store(to_split + static_cast<std::size_t>(i) * kHuge);
      });
      for (long i = 0; i <= count; ++i) store(pages + static_cast<std::size_t>(i) * kHuge);
      handler.join();
    });
  });
}

}  // namespace
}  // namespace ground_truth
