#include <sys/socket.h>
#include <sys/uio.h>

#include "../../support/io_ring.h"
#include "steps.h"

namespace ground_truth {
namespace {

// Between two reuse faults comes an allocation of the same kind of page that is no copy: by a
// system call that follows (user mode), and by one that follows a fault inside a system call.
KIND(reused_then_page_cache) {
  const int hole = memory_file("hole");
  as_last_sharer(written_private_pages(), bytes(), [=](char* pages) {
    for (long i = 0; i < count; ++i) {
      const off_t at = i * static_cast<off_t>(kPage);
      *static_cast<volatile char*>(pages + at) = 1;
      if (pwrite(hole, "x", 1, at) != 1) fail("pwrite");
    }
  });
}

// Between two reuse faults comes a read fault that allocates: the same kind of page, and no system
// call either.
KIND(reused_then_read_fault) {
  const int hole = memory_file("hole");
  char* holes = map(PROT_READ, MAP_SHARED, hole);
  as_last_sharer(written_private_pages(), bytes(), [=](char* pages) {
    for (long i = 0; i < count; ++i) {
      store(page_of(pages, i));
      (void)*static_cast<const volatile char*>(page_of(holes, i));
    }
  });
}

// The same instruction reads the next page, which is not there yet.
KIND(reused_by_string_copy) {
  char* holes = map(PROT_READ, MAP_SHARED, memory_file("hole"));
  as_last_sharer(written_private_pages(), bytes(), [=](char* pages) {
    void* to = pages;
    const void* from = holes;
    std::size_t left = bytes();
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(left) : : "memory");
  });
}

// The faulting instruction is the one that the next system call returns to.
KIND(reused_after_call) {
  const int hole = memory_file("hole");
  as_last_sharer(written_private_pages(), bytes(), [=](char* pages) {
    for (long i = 0; i < count; ++i) {
      long result = SYS_pwrite64;
      register long at asm("r10") = i * static_cast<long>(kPage);
      asm volatile("syscall\n movb $1, (%[page])"
                   : "+a"(result)
                   : "D"(hole), "S"("x"), "d"(1L), "r"(at), [page] "r"(page_of(pages, i))
                   : "rcx", "r11", "memory");
      if (result != 1) fail("pwrite");
    }
  });
}

// Both calls by the same instruction.
KIND(kernel_reused_then_page_cache) {
  const int hole = memory_file("hole");
  const int source = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  as_last_sharer(written_private_pages(), bytes(), [=](char* pages) {
    for (long i = 0; i < count; ++i) {
      const off_t at = i * static_cast<off_t>(kPage);
      if (syscall(SYS_pread64, source, pages + at, 1, 0) != 1 ||
          syscall(SYS_pwrite64, hole, "x", 1, at) != 1) {
        fail("pread");
      }
    }
  });
}

// One system call copies a cached page into a page to reuse, and then has to fetch the next ones.
KIND(kernel_reused_in_cold_read) {
  const int fd = disk_file();
  char* pages = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  write_all(pages);
  munmap(pages, bytes());
  fsync(fd);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  as_last_sharer(written_private_pages(), bytes(), [=](char* to) {
    if (pread(fd, to, static_cast<std::size_t>(count) * kPage, 0) !=
        count * static_cast<ssize_t>(kPage)) {
      fail("pread");
    }
  });
}

// Within one system call a fault reuses a page, and then the kernel's own page walk copies another
// (it unshares what it pins), with the very allocation that a fault would make.
KIND(kernel_reused_then_unshared) {
  one_down([] {
    char* to = small_pages(2 * bytes());
    char* from = small_pages(2 * bytes());
    for (long i = 0; i < 2 * count; ++i) {
      store(page_of(to, i));
      store(page_of(from, i));
    }
    const pid_t sharer = fork();
    if (sharer == 0) {
      munmap(to, 2 * bytes());
      pause();
    }
    sched_yield();  // the sharer runs until it pauses
    measured([=] {
      for (long i = 0; i < 2 * count; i += 2) {
        const iovec local[] = {{page_of(to, i), 1}, {page_of(to, i + 1), 1}};
        const iovec remote[] = {{page_of(from, i), 1}, {page_of(from, i + 1), 1}};
        if (process_vm_readv(getpid(), local, 2, remote, 2, 0) != 2) fail("process_vm_readv");
      }
    });
    kill(sharer, SIGKILL);
    waitpid(sharer, nullptr, 0);
  });
}

KIND(kernel_copied) {
  char* pages = written_private_pages();
  const int source = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  in_child([=] {
    for (long i = 0; i < count; ++i)
      if (pread(source, pages + static_cast<std::size_t>(i) * kPage, 1, 0) != 1) fail("pread");
  });
}

// N pages of new memory each: from a pipe, a socket, a file and a device.  A pipe takes 16.
KIND(read_anew) {
  const std::size_t size = static_cast<std::size_t>(count) * kPage;
  char* source = written_private_pages();
  int ends[2];
  int sockets[2];
  if (pipe(ends) != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0) fail("pipe");
  const int file = filled_memory_file("plain");
  const int device = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  const auto all = static_cast<ssize_t>(size);
  if (write(ends[1], source, size) != all || write(sockets[1], source, size) != all) fail("write");
  in_child([=] {
    const auto anew = [] {
      const iovec part = {private_pages(), static_cast<std::size_t>(count) * kPage};
      return part;
    };
    const iovec of_socket = anew();
    const iovec of_device = anew();
    if (read(ends[0], anew().iov_base, size) != all || readv(sockets[0], &of_socket, 1) != all ||
        pread(file, anew().iov_base, size, 0) != all || preadv(device, &of_device, 1, 0) != all) {
      fail("read");
    }
  });
}

// Through the kernel's own page walk: no exception, so not seen.  A documented limit.
KIND(populated) {
  char* pages = written_private_pages();
  in_child([=] {
    if (count != 0 && madvise(pages, static_cast<std::size_t>(count) * kPage, 23) != 0)
      fail("MADV_POPULATE_WRITE");
  });
}

// A thread of the kernel's serves it, which belongs to the process.
struct Ring : cowshed::test::IoRing {
  Ring() : IoRing(fail, IORING_SETUP_SQPOLL) {}

  void read_byte(int file, char* to) { run(IORING_OP_READ, file, to, 1); }
};

KIND(ring_copied) {
  char* pages = written_private_pages();
  const int source = filled_memory_file("plain");
  in_child([=] {
    Ring ring;
    ring.read_byte(source, page_of(pages, count));
    for (long i = 0; i < count; ++i) ring.read_byte(source, page_of(pages, i));
  });
}

// N children.  Each ends while it still has a kernel thread.
KIND(ring_children) {
  one_down([] {
    measured([] {
      for (long i = 0; i < count; ++i) {
        one_down([] {
          const Ring ring;
          _exit(0);
        });
      }
    });
  });
}

}  // namespace
}  // namespace ground_truth
