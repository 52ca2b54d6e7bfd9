#include <linux/sched.h>
#include <spawn.h>
#include <sys/resource.h>

#include "steps.h"

// Trees of processes and threads.

namespace ground_truth {
namespace {

// N threads, each ends before the next begins, and each copies one page.
KIND(thread_churn) {
  char* pages = written_private_pages();
  in_child([=] {
    const long threads = count;
    count = 1;
    for (long i = 0; i < threads; ++i)
      pthread_join(start_thread(write_all_of, page_of(pages, i)), nullptr);
  });
}

KIND(grandchild_copied) {
  char* pages = written_private_pages();
  one_down([=] { in_child([=] { write_all(pages); }); });
}

// N in decimal; nothing here allocates.
std::array<char, 24> digits() {
  std::array<char, 24> number{};
  long rest = count;
  for (std::size_t i = number.size() - 1; i-- > 0; rest /= 10)
    number[i] = static_cast<char>('0' + rest % 10);
  return number;
}

// A parent that copies N pages while its first and its third child share them.
KIND(saves) {
  in_child([] {
    char* pages = written_private_pages();
    {
      const Sharer sharer;
      write_all(pages);
    }
    {
      const Sharer sharer;
    }
    write_all(pages);
    const Sharer sharer;
    write_all(pages);
  });
}

// It copies N pages between two execs.
KIND(exec_twice) {
  one_down([] { execute("copies_and_executes", digits().data()); });
}

KIND(copies_and_executes) {
  char* pages = written_private_pages();
  {
    const Sharer sharer;
    write_all(pages);
  }
  execute("idle", "0");
}

KIND(exec_between) {
  char* pages = written_private_pages();
  one_down([=] {
    print("measured", getpid());
    write_all(pages);
    execute("after_exec", digits().data());
  });
}

KIND(after_exec) {
  char* pages = written_private_pages();
  const Sharer sharer;
  write_all(pages);
  finish_measured();
}

// The new program is one that does nothing.
KIND(exec_at_the_end) {
  one_down([] {
    measured([] { prctl(PR_SET_NAME, "renamed"); });
    execute("nothing", "0");
  });
}

KIND(nothing) {}

constexpr long kPagesOfShortChild = 4;

char* pages_of_short_child() {
  return static_cast<char*>(mmap(nullptr, kPagesOfShortChild * kPage, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
}

KIND(short_idle_children) {
  print("measured", getpid());
  for (long i = 0; i < count; ++i) one_down([] {});
  finish_measured();
}

KIND(spawned) {
  char kind[] = "idle";
  char number[] = "0";
  char* arguments[] = {program, kind, number, nullptr};
  pid_t child = 0;
  if (posix_spawn(&child, program, nullptr, nullptr, arguments, environ) != 0) fail("posix_spawn");
  await(child);
}

KIND(idle) {
  measured([] {});
}

// 32 generations, each of which copies all that it shares with the one before.
KIND(generations) {
  char* pages = written_private_pages();
  for (int generation = 0; generation < 32; ++generation) {
    const pid_t child = fork();
    if (child != 0) {
      await(child);
      return;
    }
    write_all(pages);
  }
  measured([] {});
}

// Short children one after the other, all with the first one's PID.  Only they: a change of
// ns_last_pid would give the PIDs near it to all that is started meanwhile.
void same_pid_of(long pages_each) {
  char* pages = pages_of_short_child();
  print("measured", getpid());
  pid_t pid = 0;
  for (long i = 0; i < count; ++i) {
    clone_args arguments{};
    arguments.exit_signal = SIGCHLD;
    if (pid != 0) {
      arguments.set_tid = reinterpret_cast<std::uintptr_t>(&pid);
      arguments.set_tid_size = 1;
    }
    const long child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child < 0 && errno == EEXIST && pid != 0) {
      pid = 0;  // somebody else has it meanwhile
      --i;
      continue;
    }
    if (child < 0) fail("clone3");
    if (child == 0) {
      write_some(pages, pages_each);
      _exit(0);
    }
    pid = static_cast<pid_t>(child);
    await(pid);
  }
  finish_measured();
}

KIND(same_pid) { same_pid_of(kPagesOfShortChild); }
KIND(idle_same_pid) { same_pid_of(0); }

// N children end by a store to `address`, with a dump of their core into a memory file system.
void crashes_at(char* address) {
  if (chdir("/dev/shm") != 0) fail("/dev/shm");
  const rlimit limit = {.rlim_cur = 1 << 24, .rlim_max = 1 << 24};
  setrlimit(RLIMIT_CORE, &limit);
  print("measured", getpid());
  for (long i = 0; i < count; ++i) {
    const pid_t child = fork();
    if (child == 0) store(address);
    int status = 0;
    if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status) || !WCOREDUMP(status))
      fail("crash");
    unlink("core");
  }
  finish_measured();
}

KIND(crashes_on_closed) { crashes_at(map(PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS)); }
KIND(crashes_on_nothing) { crashes_at(reinterpret_cast<char*>(16)); }

// On each of two CPUs N children, one after the other, copy 5,000 anonymous pages and 5,000 of an
// arena.
void volume_of(std::size_t pages_each) {
  constexpr std::size_t kPages = 5'000;
  sched_param none = {};
  sched_setscheduler(0, SCHED_OTHER, &none);
  const int fd = memory_file("cowshed:volume");
  if (ftruncate(fd, kPages * kPage) != 0) fail("ftruncate");
  const auto populated = [](int flags, int file) {
    void* at = mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, flags | MAP_POPULATE, file, 0);
    if (at == MAP_FAILED || madvise(at, kPages * kPage, MADV_NOHUGEPAGE) != 0) fail("mmap");
    return static_cast<char*>(at);
  };
  populated(MAP_SHARED, fd);  // fills the file
  char* anonymous = populated(MAP_PRIVATE | MAP_ANONYMOUS, -1);
  char* arena =
      static_cast<char*>(mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
  print("measured", getpid());
  pid_t on_cpu[2] = {};
  for (int cpu = 0; cpu < 2; ++cpu) {
    on_cpu[cpu] = fork();
    if (on_cpu[cpu] != 0) continue;
    run_on_cpu(cpu);
    for (long i = 0; i < count; ++i) {
      one_down([=] {
        for (std::size_t at = 0; at < pages_each * kPage; at += kPage) {
          store(anonymous + at);
          store(arena + at);
        }
      });
    }
    _exit(0);
  }
  await(on_cpu[0]);
  await(on_cpu[1]);
  finish_measured();
}

KIND(volume) { volume_of(5'000); }
KIND(idle_volume) { volume_of(0); }

}  // namespace
}  // namespace ground_truth
