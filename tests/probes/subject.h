#pragma once

#include <cowshed/probes/probe.h>
#include <cowshed/tests/support/needs_probes.h>
#include <cowshed/tests/support/taskstats.h>

namespace cowshed::test {

// Why this machine cannot run privileged tests; empty where it can.
std::string cannot_probe();

// What a run of ground_truth_subject did, seen by the probes and by the kernel's own accounting.
struct SubjectRun {
  std::vector<ProcessCounts> processes;  // final counts, by id
  ProcessCounts measured;                // final
  ProcessCounts while_alive;             // the measured process, when all was done but its exit
  std::optional<std::uint64_t> wpcopy;   // taskstats, at the same moment
  Losses losses;
  ProbeOverhead overhead;
};

// Runs `ground_truth_subject KIND N` under `probe`, on one CPU, without address randomisation.
// Meanwhile `observe`, if given, receives one snapshot after the other.  Throws std::runtime_error
// when the subject itself fails.
SubjectRun run_subject(Probe& probe, const std::string& kind, long n,
                       const std::function<void(const Snapshot&)>& observe = {});

// Its tests have a probe of their own.
class WithProbe : public NeedsProbes {
 protected:
  void SetUp() override {
    NeedsProbes::SetUp();
    if (!IsSkipped()) probe_ = std::make_unique<Probe>(Probe::load().value());
  }
  SubjectRun run(const std::string& kind, long n) { return run_subject(*probe_, kind, n); }

  std::unique_ptr<Probe> probe_;
};

}  // namespace cowshed::test
