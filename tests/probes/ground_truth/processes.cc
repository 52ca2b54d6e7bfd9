#include <sys/stat.h>

#include "steps.h"

// Who shares an address space, or a page, with whom.

namespace ground_truth {
namespace {

KIND(thread_copied) {
  char* pages = written_private_pages();
  in_child([=] {
    pthread_join(start_thread(write_all_of, pages), nullptr);
    // Until the kernel has released the thread, taskstats may count it twice.
    struct stat threads{};
    do sched_yield();
    while (stat("/proc/self/task", &threads) == 0 && threads.st_nlink > 3);
  });
}

// N threads, each of which has its end written to a page: it is past its sched_process_exit then.
KIND(cleared_at_exit) {
  char* pages = written_private_pages();
  in_child([=] {
    alignas(kPage) static char stack[4 * kPage];
    store(std::end(stack) - 1);
    for (long i = 0; i < count; ++i) {
      auto* ended = reinterpret_cast<int*>(page_of(pages, i));
      if (clone([](void*) -> int { return 0; }, std::end(stack),
                CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                    CLONE_CHILD_CLEARTID,
                nullptr, nullptr, nullptr, ended) < 0) {
        fail("thread");
      }
      while (__atomic_load_n(ended, __ATOMIC_ACQUIRE) != 0) sched_yield();
    }
  });
}

// A child in its parent's address space, whose pages another child shares.
void in_shared_memory(int flags) {
  char* pages = written_private_pages();
  const Sharer sharer;
  alignas(16) static char stack[64 * 1024];
  const pid_t child = clone(
      [](void* of_parent) -> int {
        measured([=] { write_all(static_cast<char*>(of_parent)); });
        _exit(0);
      },
      std::end(stack), flags | CLONE_VM | SIGCHLD, pages);
  await(child);
}

KIND(vfork_copied) { in_shared_memory(CLONE_VFORK); }
KIND(clone_copied) { in_shared_memory(0); }

KIND(in_pid_namespace) {
  char* pages = written_private_pages();
  const auto child = static_cast<pid_t>(syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0));
  if (child == 0) {
    write_all(pages);
    finish_measured();
    _exit(0);
  }
  print("measured", child);
  await(child);
}

// Its clocks are hours ahead of those of who measures it.
KIND(in_time_namespace) {
  constexpr int kNewTime = 0x80;  // CLONE_NEWTIME of linux/sched.h
  constexpr std::string_view kOffsets = "monotonic 9999 0\nboottime 9999 0\n";
  char* pages = written_private_pages();
  one_down([=] {
    const int offsets = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
    if (offsets < 0 || unshare(kNewTime) != 0 ||
        write(offsets, kOffsets.data(), kOffsets.size()) != static_cast<ssize_t>(kOffsets.size())) {
      fail("time namespace");
    }
    in_child([=] { write_all(pages); });
  });
}

// Two threads on two CPUs write to the same page at the same moment.
struct Pair {
  char* pages;
  std::atomic<long> arrived;
  std::atomic<bool> is_on_other_cpu;
};

void write_together(Pair& pair) {
  for (long i = 0; i < count; ++i) {
    ++pair.arrived;
    while (pair.arrived < 2 * (i + 1)) __builtin_ia32_pause();
    store(page_of(pair.pages, i));
  }
}

KIND(threads_at_once) {
  static Pair pair = {};
  pair.pages = written_private_pages();
  in_child([] {
    const pthread_t thread = start_thread([](void*) -> void* {
      run_on_cpu(1);
      pair.is_on_other_cpu = true;
      write_together(pair);
      return nullptr;
    });
    while (!pair.is_on_other_cpu) sched_yield();
    write_together(pair);
    pthread_join(thread, nullptr);
  });
}

// First writes to private pages of a file while a thread on another CPU maps and unmaps.
KIND(mapped_meanwhile) {
  static std::atomic<bool> is_mapping;
  static std::atomic<bool> is_done;
  const int file = filled_memory_file("plain");
  in_child([=] {
    char* pages = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, file);
    const pthread_t thread = start_thread([](void*) -> void* {
      run_on_cpu(1);
      is_mapping = true;
      std::array<void*, 100> mapped{};  // nodes of the tree of mappings come and go
      while (!is_done) {
        for (std::size_t i = 0; i < mapped.size(); ++i) {
          mapped[i] = mmap(nullptr, kPage, i % 2 == 0 ? PROT_READ : PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        }
        for (void* each : mapped) munmap(each, kPage);
      }
      return nullptr;
    });
    while (!is_mapping) sched_yield();
    write_all(pages);
    is_done = true;
    pthread_join(thread, nullptr);
  });
}

}  // namespace
}  // namespace ground_truth
