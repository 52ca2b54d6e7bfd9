#pragma once

// Room probes: the public interface of the eBPF probes.  May use base.

#include <memory>
#include <span>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/probes/counts.h>
#include <cowshed/probes/samples.h>
#include <cowshed/probes/support.h>

namespace cowshed {

// Counts the write faults of process trees exactly, by class, with eBPF on tracepoints that stock
// kernels have (x86-64, Linux 6.1 and newer, with BTF).
//
//   auto probe = Probe::load();
//   probe->track_command(child);   // stopped before its exec
//   kill(child, SIGCONT);  waitpid(child, ...);
//   auto snapshot = probe->snapshot();
//
// From then on every descendant is tracked inside the kernel, from its first instruction to its
// exit, so that the shortest-lived child is counted in full.
//
// Needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN; not tracefs, bpffs or a raised memlock limit.
// Nothing is pinned: programs and maps live as long as the Probe's descriptors (close-on-exec), so
// whatever ends this process, kill -9 too, detaches them.  A child that was forked without exec
// inherits the descriptors and keeps the programs attached until it ends.
//
// Not seen: copies that the kernel makes without an exception (MADV_POPULATE_WRITE, O_DIRECT
// reads, writes through /proc/PID/mem, process_vm_writev, futexes on a copied page), and faults of
// kernel threads that serve a process (io_uring workers).
//
// Move-only.  One thread at a time; different Probes are independent.
class Probe {
 public:
  // Loads and attaches.  Without `sampling` no samples are taken, at no cost.  Fails as
  // probe_support() does, or with what libbpf or the verifier said in one line.
  static Expected<Probe> load(const SamplingOptions& sampling = {});

  Probe(Probe&&) noexcept;
  Probe& operator=(Probe&&) noexcept;
  ~Probe();  // detaches

  // Tracks the single-threaded process `stopped_child` as a root.  What it counts before its first
  // successful exec is dropped: those are the launcher's copies, not the command's.
  // Errors: no_such_process.
  Expected<void> track_command(pid_t stopped_child);

  struct Attached {
    int processes = 0;             // that were added; 0 where all were tracked already
    std::vector<pid_t> not_found;  // roots: not there, or without memory (kernel threads, zombies)
  };
  // Tracks running processes, their threads, and whoever descends from them by parent links (an
  // orphan that init has taken over is not found); but this process, and what it started, only
  // where it is a root. Counts begin at 0 here, processes that start meanwhile are not missed.  One
  // that is tracked already stays as it is.
  Expected<Attached> attach_trees(std::span<const pid_t> roots);

  // The counts of every live tracked process since it was first tracked, and of those that ended
  // since the last snapshot: these are final, handed out once, and then forgotten.
  //
  // A count never falls from one snapshot to the next.  Each process is consistent in itself: a
  // thread that ends meanwhile is neither lost nor counted twice.
  Expected<Snapshot> snapshot();

  // The samples since the last call, each thread's in order.  The buffer holds some hundred (see
  // SamplingOptions): what does not fit until it is called is lost, and counted.  Of a command that
  // has not called exec yet there are none.  Copies are counted exactly, whatever happens here.
  Expected<std::vector<CopySample>> take_samples();

  // received + lost == emitted, unless copies are being made or take_samples() was not called yet.
  Expected<SampleCounts> sample_counts() const;

 private:
  struct State;
  explicit Probe(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cowshed
