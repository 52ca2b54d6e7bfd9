// A process tree whose write faults are known: ground_truth_subject KIND N.
//
// The measured process prints "measured PID", does N times what KIND says, prints "done" and ends
// when its standard input does.  Nothing else may depend on N, so that the same tree with N = 0 is
// the baseline; hence no allocation, no stdio, one CPU and real-time scheduling: a forked child
// runs when its parent blocks, never before, and the pages that both write are always paid for by
// the same one.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <iterator>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kHuge = 512 * kPage;

long count = 0;  // N
char* program = nullptr;

[[noreturn]] void fail(const char* what) {
  const ssize_t ignored = write(2, what, std::strlen(what));
  _exit(ignored > 0 ? 70 : 71);
}

void print(const char* word, long number) {
  char line[64];
  std::size_t length = std::strlen(word);
  std::memcpy(line, word, length);
  line[length++] = ' ';
  char digits[24];
  std::size_t used = 0;
  do {
    digits[used++] = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  while (used != 0) {
    line[length++] = digits[--used];
  }
  line[length++] = '\n';
  if (write(1, line, length) < 0) {
    fail("write");
  }
}

std::size_t bytes() { return static_cast<std::size_t>(count + 1) * kPage; }

// The (N+1)th page keeps the mapping from being empty; nobody touches it.
char* map(int protection, int flags, int fd = -1) {
  void* at = mmap(nullptr, bytes(), protection, flags, fd, 0);
  if (at == MAP_FAILED) {
    fail("mmap");
  }
  madvise(at, bytes(), MADV_NOHUGEPAGE);
  return static_cast<char*>(at);
}

char* private_pages() { return map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS); }

void write_all(char* pages) {
  for (long i = 0; i < count; ++i) {
    *static_cast<volatile char*>(pages + static_cast<std::size_t>(i) * kPage) = 1;
  }
}

void read_all(const char* pages) {
  for (long i = 0; i < count; ++i) {
    (void)*static_cast<const volatile char*>(pages + static_cast<std::size_t>(i) * kPage);
  }
}

char* written_private_pages() {
  char* pages = private_pages();
  write_all(pages);
  return pages;
}

int disk_file() {
  char name[] = "/var/tmp/cowshed-subject-XXXXXX";
  const int fd = mkstemp(name);
  if (fd < 0 || unlink(name) != 0 || ftruncate(fd, static_cast<off_t>(bytes())) != 0) {
    fail("file");
  }
  return fd;
}

int memory_file(const char* name) {
  const int fd = memfd_create(name, 0);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes())) != 0) {
    fail("memfd");
  }
  return fd;
}

int filled_memory_file(const char* name) {
  const int fd = memory_file(name);
  char* pages = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  write_all(pages);
  munmap(pages, bytes());
  return fd;
}

void finish_measured() {
  print("done", 0);
  char byte = 0;
  while (read(0, &byte, 1) > 0) {
  }
}

template <class Work>
void measured(Work work) {
  print("measured", getpid());
  work();
  finish_measured();
}

void await(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) {
    fail("child");
  }
}

// Most kinds: the child is measured while its parent blocks in waitpid.
template <class Work>
void in_child(Work work) {
  const pid_t child = fork();
  if (child == 0) {
    measured(work);
    _exit(0);
  }
  await(child);
}

// For kinds whose measured process forks itself: taskstats also counts what the root copied before
// its exec.
template <class Scenario>
void one_down(Scenario scenario) {
  const pid_t child = fork();
  if (child == 0) {
    scenario();
    _exit(0);
  }
  await(child);
}

void anon_copied() {
  char* pages = written_private_pages();
  in_child([=] { write_all(pages); });
}

void parent_copies() {
  char* pages = written_private_pages();
  const pid_t child = fork();
  if (child == 0) {
    pause();
  }
  measured([=] { write_all(pages); });
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

// The child becomes the last sharer before it writes.
template <class Work>
void as_last_sharer(Work work) {
  char* pages = written_private_pages();
  const pid_t child = fork();
  if (child == 0) {
    sched_yield();  // the parent blocks in waitpid, without the pages
    measured([=] { work(pages); });
    _exit(0);
  }
  munmap(pages, bytes());
  await(child);
}

void reused() { as_last_sharer(write_all); }

// Between two reuse faults comes an allocation of the same kind of page that is no copy: by a
// system call that follows (user mode), and by one that follows a fault inside a system call.
void reused_then_page_cache() {
  const int hole = memory_file("hole");
  as_last_sharer([=](char* pages) {
    for (long i = 0; i < count; ++i) {
      const off_t at = i * static_cast<off_t>(kPage);
      *static_cast<volatile char*>(pages + at) = 1;
      if (pwrite(hole, "x", 1, at) != 1) {
        fail("pwrite");
      }
    }
  });
}

void kernel_reused_then_page_cache() {
  const int hole = memory_file("hole");
  const int source = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  as_last_sharer([=](char* pages) {
    for (long i = 0; i < count; ++i) {
      const off_t at = i * static_cast<off_t>(kPage);
      if (pread(source, pages + at, 1, 0) != 1 || pwrite(hole, "x", 1, at) != 1) {
        fail("pread");
      }
    }
  });
}

// One system call copies a cached page into a page to reuse, and then has to fetch the next ones.
void kernel_reused_in_cold_read() {
  const int fd = disk_file();
  char* pages = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  write_all(pages);
  munmap(pages, bytes());
  fsync(fd);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  as_last_sharer([=](char* to) {
    if (pread(fd, to, static_cast<std::size_t>(count) * kPage, 0) !=
        count * static_cast<ssize_t>(kPage)) {
      fail("pread");
    }
  });
}

// Within one system call a fault reuses a page, and then the kernel's own page walk copies another
// (it unshares what it pins), with the very allocation that a fault would make.
void kernel_reused_then_unshared() {
  char* to = static_cast<char*>(
      mmap(nullptr, 2 * bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  char* from = static_cast<char*>(
      mmap(nullptr, 2 * bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  madvise(to, 2 * bytes(), MADV_NOHUGEPAGE);
  madvise(from, 2 * bytes(), MADV_NOHUGEPAGE);
  const auto page = [](char* pages, long i) { return pages + static_cast<std::size_t>(i) * kPage; };
  for (long i = 0; i < 2 * count; ++i) {
    *static_cast<volatile char*>(page(to, i)) = 1;
    *static_cast<volatile char*>(page(from, i)) = 1;
  }
  const pid_t sharer = fork();
  if (sharer == 0) {
    munmap(to, 2 * bytes());
    pause();
  }
  sched_yield();  // the sharer runs until it pauses
  measured([=] {
    for (long i = 0; i < 2 * count; i += 2) {
      const iovec local[] = {{page(to, i), 1}, {page(to, i + 1), 1}};
      const iovec remote[] = {{page(from, i), 1}, {page(from, i + 1), 1}};
      if (process_vm_readv(getpid(), local, 2, remote, 2, 0) != 2) {
        fail("process_vm_readv");
      }
    }
  });
  kill(sharer, SIGKILL);
  waitpid(sharer, nullptr, 0);
}

void zero_page_write() {
  in_child([] {
    char* pages = private_pages();
    read_all(pages);
    write_all(pages);
  });
}

void first_touch() {
  in_child([] { write_all(private_pages()); });
}

void shared_first_touch() {
  in_child([] { write_all(map(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS)); });
}

void file_read_then_write() {
  const int fd = filled_memory_file("plain");
  in_child([=] {
    char* pages = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
    read_all(pages);
    write_all(pages);
  });
}

void file_never_read() {
  const int fd = filled_memory_file("plain");
  in_child([=] { write_all(map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd)); });
}

void disk_file_never_read() {
  const int fd = disk_file();
  in_child([=] { write_all(map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd)); });
}

void arena_copied() {
  const int fd = filled_memory_file("cowshed:truth");
  char* pages = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  in_child([=] {
    read_all(pages);
    write_all(pages);
  });
}

void write_notify() {
  const int fd = disk_file();
  in_child([=] {
    char* pages = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    read_all(pages);
    write_all(pages);
  });
}

// The handler opens one page of what was closed, and the store is tried again.
void reopen(int, siginfo_t* info, void*) {
  auto* at = static_cast<char*>(info->si_addr);
  mprotect(at - (reinterpret_cast<std::uintptr_t>(at) & (kPage - 1)), kPage,
           PROT_READ | PROT_WRITE);
}

void stores_to_closed(int protection) {
  struct sigaction action = {};
  action.sa_sigaction = reopen;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, nullptr);
  in_child([=] {
    char* pages = written_private_pages();
    mprotect(pages, bytes(), protection);
    write_all(pages);
  });
}

void closed_to_writes() { stores_to_closed(PROT_READ); }
void closed_to_all() { stores_to_closed(PROT_NONE); }

// N huge pages, not touched yet.
char* huge_pages() {
  const std::size_t size = static_cast<std::size_t>(count + 1) * kHuge;
  void* mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED || madvise(mapped, size, MADV_HUGEPAGE) != 0) {
    fail("huge pages");
  }
  auto* start = static_cast<char*>(mapped);
  return start + (-reinterpret_cast<std::uintptr_t>(start) & (kHuge - 1));
}

void touch_each(char* huge, std::size_t stride) {
  for (std::size_t at = 0; at < static_cast<std::size_t>(count) * kHuge; at += stride) {
    *static_cast<volatile char*>(huge + at) = 1;
  }
}

void huge_shared() {
  char* huge = huge_pages();
  touch_each(huge, kHuge);
  in_child([=] { touch_each(huge, kPage); });
}

void huge_first_touch() {
  in_child([] { touch_each(huge_pages(), kHuge); });
}

void kernel_copied() {
  char* pages = written_private_pages();
  const int source = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  in_child([=] {
    for (long i = 0; i < count; ++i) {
      if (pread(source, pages + static_cast<std::size_t>(i) * kPage, 1, 0) != 1) {
        fail("pread");
      }
    }
  });
}

void* write_from_thread(void* pages) {
  write_all(static_cast<char*>(pages));
  return nullptr;
}

void thread_copied() {
  char* pages = written_private_pages();
  in_child([=] {
    pthread_t thread;
    if (pthread_create(&thread, nullptr, write_from_thread, pages) != 0 ||
        pthread_join(thread, nullptr) != 0) {
      fail("thread");
    }
  });
}

// Each page is a mapping of its own, between closed ones.
void many_mappings() {
  const std::size_t size = 2 * bytes();
  void* mapped = mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    fail("mmap");
  }
  auto* pages = static_cast<char*>(mapped);
  for (long i = 0; i < count; ++i) {
    char* page = pages + static_cast<std::size_t>(2 * i) * kPage;
    if (mprotect(page, kPage, PROT_READ | PROT_WRITE) != 0) {
      fail("mprotect");
    }
    *static_cast<volatile char*>(page) = 1;
  }
  in_child([=] {
    for (long i = 0; i < count; ++i) {
      *static_cast<volatile char*>(pages + static_cast<std::size_t>(2 * i) * kPage) = 2;
    }
  });
}

// N threads, each ends before the next begins, and each copies one page.
void thread_churn() {
  char* pages = written_private_pages();
  in_child([=] {
    const long threads = count;
    count = 1;
    for (long i = 0; i < threads; ++i) {
      pthread_t thread;
      if (pthread_create(&thread, nullptr, write_from_thread,
                         pages + static_cast<std::size_t>(i) * kPage) != 0 ||
          pthread_join(thread, nullptr) != 0) {
        fail("thread");
      }
    }
  });
}

void grandchild_copied() {
  char* pages = written_private_pages();
  const pid_t child = fork();
  if (child == 0) {
    in_child([=] { write_all(pages); });
    _exit(0);
  }
  await(child);
}

void exec_between() {
  char* pages = written_private_pages();
  const pid_t child = fork();
  if (child == 0) {
    print("measured", getpid());
    write_all(pages);
    char number[24] = {};
    long rest = count;
    for (char* digit = number + sizeof number - 2; digit >= number; --digit, rest /= 10) {
      *digit = static_cast<char>('0' + rest % 10);
    }
    char kind[] = "after_exec";
    char* arguments[] = {program, kind, number, nullptr};
    execve(program, arguments, environ);
    fail("execve");
  }
  await(child);
}

void after_exec() {
  char* pages = written_private_pages();
  const pid_t child = fork();
  if (child == 0) {
    pause();
  }
  write_all(pages);
  finish_measured();
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

constexpr long kPagesOfShortChild = 4;

void short_children_of(long pages_each) {
  char* pages = static_cast<char*>(mmap(nullptr, kPagesOfShortChild * kPage, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
  print("measured", getpid());
  for (long i = 0; i < count; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      for (long page = 0; page < pages_each; ++page) {
        *static_cast<volatile char*>(pages + static_cast<std::size_t>(page) * kPage) = 1;
      }
      _exit(0);
    }
    await(child);
  }
  finish_measured();
}

void short_children() { short_children_of(kPagesOfShortChild); }
void short_idle_children() { short_children_of(0); }

// A child in its parent's address space, whose pages another child shares.
void vfork_copied() {
  char* pages = written_private_pages();
  const pid_t sharer = fork();
  if (sharer == 0) {
    pause();
  }
  alignas(16) static char stack[64 * 1024];
  struct Job {
    char* pages;
  } job = {pages};
  const pid_t child = clone(
      [](void* argument) -> int {
        char* of_parent = static_cast<Job*>(argument)->pages;
        measured([=] { write_all(of_parent); });
        _exit(0);
      },
      std::end(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, &job);
  await(child);
  kill(sharer, SIGKILL);
  waitpid(sharer, nullptr, 0);
}

void spawned() {
  char kind[] = "idle";
  char number[] = "0";
  char* arguments[] = {program, kind, number, nullptr};
  pid_t child = 0;
  if (posix_spawn(&child, program, nullptr, nullptr, arguments, environ) != 0) {
    fail("posix_spawn");
  }
  await(child);
}

void idle() {
  measured([] {});
}

// Through the kernel's own page walk: no exception, so not seen.  A documented limit.
void populated() {
  char* pages = written_private_pages();
  in_child([=] {
    if (count != 0 && madvise(pages, static_cast<std::size_t>(count) * kPage, 23) != 0) {
      fail("MADV_POPULATE_WRITE");
    }
  });
}

struct Kind {
  std::string_view name;
  void (*run)();
};

constexpr Kind kKinds[] = {
    {"anon_copied", anon_copied},
    {"parent_copies", [] { one_down(parent_copies); }},
    {"reused", reused},
    {"reused_then_page_cache", reused_then_page_cache},
    {"kernel_reused_then_page_cache", kernel_reused_then_page_cache},
    {"kernel_reused_in_cold_read", kernel_reused_in_cold_read},
    {"kernel_reused_then_unshared", [] { one_down(kernel_reused_then_unshared); }},
    {"zero_page_write", zero_page_write},
    {"first_touch", first_touch},
    {"shared_first_touch", shared_first_touch},
    {"file_read_then_write", file_read_then_write},
    {"file_never_read", file_never_read},
    {"disk_file_never_read", disk_file_never_read},
    {"arena_copied", arena_copied},
    {"write_notify", write_notify},
    {"closed_to_writes", closed_to_writes},
    {"closed_to_all", closed_to_all},
    {"huge_shared", huge_shared},
    {"huge_first_touch", huge_first_touch},
    {"kernel_copied", kernel_copied},
    {"thread_copied", thread_copied},
    {"many_mappings", many_mappings},
    {"thread_churn", thread_churn},
    {"grandchild_copied", grandchild_copied},
    {"exec_between", exec_between},
    {"after_exec", after_exec},
    {"short_children", short_children},
    {"short_idle_children", short_idle_children},
    {"vfork_copied", vfork_copied},
    {"spawned", spawned},
    {"idle", idle},
    {"populated", populated},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fail("usage: ground_truth_subject KIND N\n");
  }
  program = argv[0];
  count = std::atol(argv[2]);
  sched_param priority = {.sched_priority = 1};
  sched_setscheduler(0, SCHED_FIFO, &priority);
  for (const Kind& kind : kKinds) {
    if (kind.name == argv[1]) {
      kind.run();
      return 0;
    }
  }
  fail("unknown kind\n");
}
