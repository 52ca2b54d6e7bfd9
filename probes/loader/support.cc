#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <linux/bpf.h>
#include <sstream>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>

#include <cowshed/probes/support.h>

namespace cowshed {
namespace {

#ifdef __x86_64__
constexpr bool kKnowsThisCpu = true;
#else
constexpr bool kKnowsThisCpu = false;
#endif

constexpr int kCapSysAdmin = 21;  // linux/capability.h
constexpr int kCapPerfmon = 38;
constexpr int kCapBpf = 39;

std::uint64_t effective_capabilities(const std::filesystem::path& root) {
  std::ifstream status(root / "proc/self/status");
  for (std::string line; std::getline(status, line);) {
    std::uint64_t mask = 0;
    if (line.rfind("CapEff:", 0) == 0 && (std::istringstream(line.substr(7)) >> std::hex >> mask))
      return mask;
  }
  return 0;
}

std::string missing_capabilities(const std::filesystem::path& root) {
  const std::uint64_t mask = effective_capabilities(root);
  const auto has = [mask](int capability) { return (mask >> capability & 1U) != 0; };
  if (has(kCapSysAdmin) || (has(kCapBpf) && has(kCapPerfmon))) return {};
  return has(kCapBpf) ? "CAP_PERFMON" : has(kCapPerfmon) ? "CAP_BPF" : "CAP_BPF and CAP_PERFMON";
}

// "none integrity [confidentiality]"
bool is_locked_down(const std::filesystem::path& root) {
  std::ifstream modes(root / "sys/kernel/security/lockdown");
  std::string text;
  return std::getline(modes, text) && text.find("[confidentiality]") != text.npos;
}

// A user namespace maps only some of the user IDs (user_namespaces(7)).
bool is_in_user_namespace() {
  std::ifstream map("/proc/self/uid_map");
  std::uint64_t inside = 0;
  std::uint64_t outside = 0;
  std::uint64_t count = 0;
  return (map >> inside >> outside >> count) && count != UINT32_MAX;
}

// Returns 0 or an errno.
int call_bpf(unsigned command, bpf_attr& attributes) {
  const long fd = syscall(SYS_bpf, command, &attributes, sizeof attributes);
  if (fd < 0) return errno;
  close(static_cast<int>(fd));
  return 0;
}

// The kernel itself answers EINVAL to a command that it does not know, whatever the capabilities.
int error_of_unknown_command() {
  constexpr unsigned kUnknown = 0x7fffffff;
  bpf_attr nothing{};
  return call_bpf(kUnknown, nothing);
}

bool may_make_maps() {
  bpf_attr map{};
  // This type of map needs CAP_BPF, whatever kernel.unprivileged_bpf_disabled is.
  map.map_type = BPF_MAP_TYPE_LRU_HASH;
  map.key_size = sizeof(std::uint32_t);
  map.value_size = sizeof(std::uint32_t);
  map.max_entries = 1;
  const int error = call_bpf(BPF_MAP_CREATE, map);
  return error != EPERM && error != EACCES;  // loading will report any other error better
}

void add_lacks_of_call(std::vector<ProbeLack>& lacks) {
  const int error = error_of_unknown_command();
  if (error == ENOSYS) lacks.push_back(ProbeLack::bpf_call);
  else if (error == EPERM || error == EACCES) lacks.push_back(ProbeLack::seccomp);
  if (std::ranges::find(lacks, ProbeLack::capabilities) != lacks.end() || may_make_maps()) return;
  if (is_in_user_namespace()) lacks.push_back(ProbeLack::user_namespace);
  else if (error == EINVAL) lacks.push_back(ProbeLack::bpf_call);
}

std::string text_of(ProbeLack lack, const std::filesystem::path& root) {
  switch (lack) {
    case ProbeLack::cpu: return "exact counts need a CPU of x86-64";
    case ProbeLack::btf:
      return "no /sys/kernel/btf/vmlinux (a kernel with CONFIG_DEBUG_INFO_BTF, and sysfs mounted)";
    case ProbeLack::lockdown:
      return "the kernel is in lockdown mode confidentiality, in which no program may read its "
             "memory";
    case ProbeLack::capabilities:
      return missing_capabilities(root) + " missing (run as root, or grant them)";
    case ProbeLack::seccomp:
      return "bpf(2) is refused, as by a container's seccomp filter (run outside of it, or allow "
             "bpf)";
    case ProbeLack::user_namespace:
      return "bpf(2) is refused, since the capabilities are those of a user namespace (run "
             "outside of it)";
    case ProbeLack::bpf_call: break;
  }
  return "this kernel has no bpf(2), or something refuses it despite the capabilities";
}

bool can_be_allowed(ProbeLack lack) {
  return lack == ProbeLack::capabilities || lack == ProbeLack::seccomp ||
         lack == ProbeLack::user_namespace;
}

}  // namespace

std::vector<ProbeLack> probe_lacks(const std::filesystem::path& root) {
  if (!kKnowsThisCpu && root == "/") return {ProbeLack::cpu};  // whatever else it lacks
  std::vector<ProbeLack> lacks;
  std::error_code ignored;
  if (!std::filesystem::exists(root / "sys/kernel/btf/vmlinux", ignored))
    lacks.push_back(ProbeLack::btf);
  if (is_locked_down(root)) lacks.push_back(ProbeLack::lockdown);
  if (!missing_capabilities(root).empty()) lacks.push_back(ProbeLack::capabilities);
  if (root == "/") add_lacks_of_call(lacks);
  return lacks;
}

Expected<void> probe_support(const std::filesystem::path& root) {
  const std::vector<ProbeLack> lacks = probe_lacks(root);
  if (lacks.empty()) return {};
  std::string message = "cannot count with eBPF: ";
  for (const ProbeLack& lack : lacks)
    message += (&lack == &lacks.front() ? "" : "; ") + text_of(lack, root);
  const bool allowed = std::ranges::all_of(lacks, can_be_allowed);
  return make_error(allowed ? ErrorCode::permission_denied : ErrorCode::unsupported, message);
}

}  // namespace cowshed
