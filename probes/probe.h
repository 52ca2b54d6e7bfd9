#pragma once

#include <memory>
#include <span>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/probes/counts.h>
#include <cowshed/probes/python_layout.h>
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
// The kernel then tracks every descendant from its first instruction to its exit, so that even the
// shortest-lived child is counted in full.
//
// Needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN; not tracefs, bpffs or a raised memlock limit.
// Nothing is pinned: the programs and maps live as long as the Probe's descriptors (close-on-exec).
// So any end of this process, even by SIGKILL, detaches them.  A forked child without exec inherits
// the descriptors and keeps the programs attached until it ends.
//
// Not counted: copies without an exception (MADV_POPULATE_WRITE, O_DIRECT reads, writes through
// /proc/PID/mem, process_vm_writev, futexes on a copied page), and faults of kernel threads that
// serve a process (io_uring workers).
//
// Move-only.  One thread at a time; different Probes are independent.
class Probe {
 public:
  // Loads and attaches the programs.  Without `sampling` there are no samples and no cost for them.
  // Errors: those of probe_support(); else one line of libbpf or the verifier.
  static Expected<Probe> load(const SamplingOptions& sampling = {});

  Probe(Probe&&) noexcept;
  Probe& operator=(Probe&&) noexcept;
  ~Probe();  // detaches

  // Tracks the single-threaded process `stopped_child` as a root.  Counts before its first
  // successful exec are dropped, because they belong to the launcher.  Errors: no_such_process.
  Expected<void> track_command(pid_t stopped_child);

  struct Attached {
    int processes = 0;             // newly tracked ones
    std::vector<pid_t> not_found;  // missing roots, and those without memory (zombies)
  };
  // Tracks running processes, their threads and their descendants by parent links (not an orphan
  // that init has taken over).  This process and its descendants are tracked only if they are
  // roots. Counts begin at 0; processes that start meanwhile are not missed.  A process that is
  // already tracked does not change.  Errors: system_call.
  Expected<Attached> attach_trees(std::span<const pid_t> roots);

  // Returns the counts of every live tracked process since it was first tracked, and once the final
  // counts of each process that ended since the last snapshot.  A count never falls.  Each process
  // is consistent: a thread that ends meanwhile is neither lost nor counted twice.  Errors:
  // system_call.
  Expected<Snapshot> snapshot();

  // From now on samples of the program `image` (ProcessCounts::image) have Python frames and object
  // types.  The table has room for 8192 programs, and forgets those that were not sampled for long.
  // Errors: system_call.
  Expected<void> add_interpreter(std::uint64_t image, const PythonLayout& layout);

  // Returns the samples since the last call, in order for each thread.  The buffer has room for
  // some hundred (SamplingOptions); further samples are lost, and counted as lost.  A command has
  // none before its exec.  Lost samples do not change the counts of copies.
  Expected<std::vector<CopySample>> take_samples();

  // Readable as soon as there is a sample.
  int samples_fd() const;

  // Returns the numbers of samples: emitted == received + lost, once all were taken.
  Expected<SampleCounts> sample_counts() const;

 private:
  struct State;
  explicit Probe(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cowshed
