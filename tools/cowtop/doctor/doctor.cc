#include <algorithm>
#include <fmt/format.h>
#include <fstream>
#include <sys/utsname.h>
#include <thread>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/doctor/doctor.h>
#include <cowshed/tools/cowtop/doctor/self_test.h>

namespace cowshed::cowtop {
namespace {

Expected<std::uint64_t> count_by(cow::BackendChoice backend) {
  TRY(auto opened, cow::open_backend(backend));
  return measure_ground_truth(*opened.backend);
}

Diagnosis diagnosis_of(cow::BackendChoice backend) {
  Diagnosis diagnosis{backend, count_by(backend), {}};
  if (backend == cow::BackendChoice::tracepoint && !diagnosis.works())
    diagnosis.lacks = probe_lacks();
  // On a busy machine the sampled backend may sample at the wrong time.
  const int more_tries = backend == cow::BackendChoice::pagemap ? 2 : 0;
  for (int i = 0; i < more_tries && !diagnosis.works(); ++i) diagnosis.counted = count_by(backend);
  return diagnosis;
}

// Who can allow it, and how.
const char* remedy_of(ProbeLack lack) {
  switch (lack) {
    case ProbeLack::cpu: return "  CPU: none. Sampled counts work on this CPU, too.\n";
    case ProbeLack::btf:
      return "  BTF: boot a kernel that has it, as those of Debian, Ubuntu, Fedora and RHEL.\n"
             "    In a container or chroot: mount the host's /sys, read-only is enough.\n";
    case ProbeLack::lockdown:
      return "  lockdown: the machine's administrator boots with lockdown=integrity, or without\n"
             "    lockdown=. It cannot be taken back while the kernel runs.\n";
    case ProbeLack::capabilities:
      return "  capabilities: run as root, or as a user with these capabilities as ambient ones.\n"
             "    Docker and Podman, as root: --cap-add BPF --cap-add PERFMON\n"
             "    Kubernetes: securityContext: {capabilities: {add: [BPF, PERFMON]}}\n";
    case ProbeLack::seccomp:
      return "  bpf(2): whoever starts the container allows it in the seccomp profile.\n"
             "    Docker 23 and Podman of Debian 13, or newer: their own profiles allow it to a\n"
             "    container with CAP_BPF.\n"
             "    Podman of Debian 12, and Docker before 23: --security-opt seccomp=FILE, where\n"
             "    FILE is a profile of your own (docs/how-to/containers.md makes one).\n"
             "    Kubernetes: securityContext: {seccompProfile: {type: RuntimeDefault}} where the\n"
             "    runtime allows it with CAP_BPF, else {type: Localhost, localhostProfile: FILE}.\n"
             "    Or run cowtop on the host: it measures a container by --cgroup ID.\n";
    case ProbeLack::user_namespace:
      return "  user namespace: run cowtop outside of it, as root on the host. Rootless Docker "
             "and\n"
             "    Podman, and hostUsers: false of Kubernetes, make one: no option allows bpf(2).\n";
    case ProbeLack::bpf_call:
      return "  bpf(2): a kernel with CONFIG_BPF_SYSCALL; if it has that, ask the administrator\n"
             "    whether a security module, as SELinux or AppArmor, refuses the call.\n";
  }
  return "";
}

// KSM merges equal pages, also those that were copied and changed back.
std::string ksm_text() {
  const std::optional<bool> runs = ksm_runs();
  if (!runs) return "this kernel has no KSM\n";
  if (*runs) return "KSM runs: cowshed run --merge -- CMD lets it merge equal pages\n";
  return "KSM does not run: echo 1 >/sys/kernel/mm/ksm/run starts it, for cowshed run --merge\n";
}

const char* name_of(cow::BackendChoice backend) {
  return backend == cow::BackendChoice::tracepoint ? "tracepoint" : "pagemap";
}

}  // namespace

std::optional<bool> ksm_runs() {
  char run = 0;
  if (!(std::ifstream("/sys/kernel/mm/ksm/run") >> run)) return std::nullopt;
  return run == '1';
}

bool Diagnosis::works() const { return counted && *counted == kGroundTruthPages; }

std::vector<Diagnosis> diagnose() {
  return {diagnosis_of(cow::BackendChoice::tracepoint), diagnosis_of(cow::BackendChoice::pagemap)};
}

std::string doctor_text(const std::vector<Diagnosis>& diagnoses) {
  utsname system{};
  ::uname(&system);
  std::string text =
      fmt::format("cowtop {} on Linux {}, {}, {} CPUs\n", COWSHED_VERSION, system.release,
                  system.machine, std::thread::hardware_concurrency());
  for (const Diagnosis& each : diagnoses) {
    const bool is_exact = each.backend == cow::BackendChoice::tracepoint;
    text += fmt::format("\n{} backend ({}): {}\n", name_of(each.backend),
                        is_exact ? "exact, by eBPF" : "sampled, by /proc",
                        each.works() ? "works" : "does not work here");
    text +=
        each.counted
            ? fmt::format("  proof: of two children, one wrote to {} pages more: it counts {}\n",
                          kGroundTruthPages, *each.counted)
            : fmt::format("  reason: {}\n", each.counted.error().message);
    for (const ProbeLack lack : each.lacks) text += remedy_of(lack);
  }
  const auto best = std::ranges::find_if(diagnoses, &Diagnosis::works);
  if (best == diagnoses.end()) return text + "\ncowtop cannot measure here\n";
  text += fmt::format("\ncowtop uses the {} backend here\n", name_of(best->backend));
  text += ksm_text();
  if (best->backend == cow::BackendChoice::pagemap) {
    text +=
        "  works: copies of each child, what it still shares, PSS and its peak\n"
        "  does not: code, causes and objects; copies of the root itself; children that end "
        "unseen\n";
  }
  return text;
}

}  // namespace cowshed::cowtop
