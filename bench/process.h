#pragma once

#include <cstddef>
#include <functional>
#include <pthread.h>
#include <string>
#include <sys/types.h>

// Processes, their CPUs and their memory.
namespace cowshed::bench {

// A forked process that does `work` on a CPU as pin_to_cpu() counts them, and ends.
class Child {
 public:
  Child(std::size_t cpu, const std::function<void()>& work);
  ~Child();  // kills it
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void join();  // throws std::runtime_error if it has failed
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

// Zeroed, shared with what is forked later.  Throws if there is none.
void* shared_memory(std::size_t bytes);

// In shared memory, for pthread_barrier_wait() of so many processes.
pthread_barrier_t* shared_barrier(unsigned processes);

// Throws if less than nine tenths of `bytes` lie in pages of 2 MiB, or, if `bytes` is 0, if any do.
// `field` of /proc/self/smaps_rollup is AnonHugePages for the heap, ShmemPmdMapped for a memfd.
void expect_pages(const std::string& field, std::size_t bytes);

// The process's heap gets pages of 4 KiB, whatever the machine's default.
void use_small_pages();

// How many CPUs this process may use.
std::size_t cpu_count();
// Pins the calling thread to the `index`-th of its CPUs, counted from the last: the first CPU
// serves most interrupts.  Wraps.  What it forks or starts inherits that.
void pin_to_cpu(std::size_t index);
// Lets it run on all of them again.
void unpin();

// "Name:   123 kB" of a file like /proc/self/smaps_rollup, in bytes.  Throws if it is missing.
std::size_t proc_bytes(const std::string& path, const std::string& name);

}  // namespace cowshed::bench
