#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <sys/utsname.h>
#include <thread>
#include <unistd.h>

#include <cowshed/base/pagemap.h>
#include <cowshed/probes/support.h>
#include <cowshed/tools/cowtop/doctor.h>
#include <cowshed/tools/cowtop/ground_truth.h>

namespace cowshed::cowtop {
namespace {

constexpr unsigned kCapSysPtrace = 19;  // linux/capability.h
constexpr unsigned kCapSysAdmin = 21;
constexpr unsigned kCapPerfmon = 38;
constexpr unsigned kCapBpf = 39;

bool has_capability(unsigned capability) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    std::uint64_t mask = 0;
    if (line.starts_with("CapEff:") && (std::istringstream(line.substr(7)) >> std::hex >> mask)) {
      return (mask >> capability & 1U) != 0;
    }
  }
  return false;
}

bool can_read(const char* path) { return ::access(path, R_OK) == 0; }

bool opens_pagemap() {
  const int fd = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd >= 0) ::close(fd);
  return fd >= 0;
}

Requirement of_other_users() {
  return {"CAP_SYS_PTRACE", has_capability(kCapSysPtrace),
          "of other users' processes it is not known what they still share, nor which objects they"
          " copied: run as root"};
}

void prove(Diagnosis& diagnosis) {
  // On a busy machine the sampled backend may look too late, or too early and not again.
  const int most_tries = diagnosis.backend == cow::BackendChoice::pagemap ? 3 : 1;
  for (int tries = 0; tries < most_tries && !diagnosis.works(); ++tries) {
    auto opened = cow::open_backend(diagnosis.backend);
    const auto pages = opened ? measure_ground_truth(*opened->backend)
                              : Expected<std::uint64_t>(tl::make_unexpected(opened.error()));
    diagnosis.proof_pages = pages ? std::optional(*pages) : std::nullopt;
    diagnosis.failure = pages ? "" : pages.error().message;
  }
}

Diagnosis of_tracepoints() {
  Diagnosis result;
  result.backend = cow::BackendChoice::tracepoint;
#if defined(__x86_64__)
  constexpr bool kIsX86 = true;
#else
  constexpr bool kIsX86 = false;
#endif
  result.needs.push_back(
      {"x86-64", kIsX86, "the page fault tracepoints that it uses are x86-64's"});
  result.needs.push_back({"/sys/kernel/btf/vmlinux", can_read("/sys/kernel/btf/vmlinux"),
                          "take a kernel with CONFIG_DEBUG_INFO_BTF (all of Debian's and Ubuntu's"
                          " since 2020), and mount sysfs"});
  const bool may =
      has_capability(kCapSysAdmin) || (has_capability(kCapBpf) && has_capability(kCapPerfmon));
  result.needs.push_back({"CAP_BPF and CAP_PERFMON", may,
                          "run as root, or: setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep on the"
                          " file of cowtop"});
  // Without the capabilities its refusal says nothing more.
  if (may) {
    const auto call = bpf_call_support();
    result.needs.push_back({"bpf(2)", call.has_value(), call ? "" : call.error().message});
  }
  result.gains.push_back(of_other_users());
  prove(result);
  return result;
}

Diagnosis of_pagemap() {
  Diagnosis result;
  result.backend = cow::BackendChoice::pagemap;
  result.needs.push_back({"/proc/PID/pagemap", opens_pagemap(),
                          "mount proc, and take a kernel with CONFIG_PROC_PAGE_MONITOR"});
  result.gains.push_back({"page tables that tell the zero page", tells_zero_page(),
                          "memory that was only read counts as shared: Linux 6.7, or run as root"});
  result.gains.push_back(of_other_users());
  prove(result);
  return result;
}

const char* name_of(cow::BackendChoice backend) {
  return backend == cow::BackendChoice::tracepoint ? "tracepoint" : "pagemap";
}

std::string machine() {
  utsname system{};
  ::uname(&system);
  return fmt::format("Linux {}, {}, {} CPUs", system.release, system.machine,
                     std::thread::hardware_concurrency());
}

std::string line_of(const Requirement& each) {
  return each.met ? fmt::format("  has    {}\n", each.what)
                  : fmt::format("  lacks  {}: {}\n", each.what, each.otherwise);
}

nlohmann::ordered_json list(const std::vector<Requirement>& requirements) {
  auto array = nlohmann::ordered_json::array();
  for (const Requirement& each : requirements) {
    array.push_back({{"what", each.what}, {"met", each.met}});
    if (!each.met) array.back()["otherwise"] = each.otherwise;
  }
  return array;
}

}  // namespace

bool Diagnosis::works() const { return proof_pages == kGroundTruthPages; }

std::vector<Diagnosis> diagnose() { return {of_tracepoints(), of_pagemap()}; }

std::string doctor_text(const std::vector<Diagnosis>& diagnoses) {
  std::string text = fmt::format("cowtop {} on {}\n", COWSHED_VERSION, machine());
  for (const Diagnosis& each : diagnoses) {
    const bool is_exact = each.backend == cow::BackendChoice::tracepoint;
    text += fmt::format("\n{} backend ({}): {}\n", name_of(each.backend),
                        is_exact ? "exact, by eBPF" : "sampled, by /proc",
                        each.works() ? "works" : "does not work here");
    for (const Requirement& need : each.needs) text += line_of(need);
    for (const Requirement& gain : each.gains) text += line_of(gain);
    text +=
        each.proof_pages
            ? fmt::format("  proof  of two children, one wrote to {} pages more: it counts {}\n",
                          kGroundTruthPages, *each.proof_pages)
            : fmt::format("  proof  none: {}\n", each.failure);
  }
  const auto best = std::find_if(diagnoses.begin(), diagnoses.end(),
                                 [](const auto& each) { return each.works(); });
  return text + (best == diagnoses.end()
                     ? "\ncowtop cannot measure here\n"
                     : fmt::format("\ncowtop uses the {} backend here\n", name_of(best->backend)));
}

std::string doctor_json(const std::vector<Diagnosis>& diagnoses) {
  nlohmann::ordered_json report = {{"schema", "cowshed.doctor/1"},
                                   {"cowtop", COWSHED_VERSION},
                                   {"machine", machine()},
                                   {"backends", nlohmann::ordered_json::array()}};
  for (const Diagnosis& each : diagnoses) {
    nlohmann::ordered_json proof = {{"expected_pages", kGroundTruthPages}};
    proof["counted_pages"] = each.proof_pages ? nlohmann::ordered_json(*each.proof_pages) : nullptr;
    if (!each.failure.empty()) proof["failure"] = each.failure;
    report["backends"].push_back({{"backend", name_of(each.backend)},
                                  {"works", each.works()},
                                  {"needs", list(each.needs)},
                                  {"gains", list(each.gains)},
                                  {"proof", std::move(proof)}});
  }
  return report.dump(2) + "\n";
}

}  // namespace cowshed::cowtop
