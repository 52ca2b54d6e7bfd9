#include <cerrno>
#include <cstdint>
#include <fstream>
#include <linux/bpf.h>
#include <sstream>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include <cowshed/probes/support.h>

namespace cowshed {
namespace {

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

// A user namespace maps only some of the user IDs (user_namespaces(7)).
bool is_in_user_namespace() {
  std::ifstream map("/proc/self/uid_map");
  std::uint64_t inside = 0;
  std::uint64_t outside = 0;
  std::uint64_t count = 0;
  return (map >> inside >> outside >> count) && count != UINT32_MAX;
}

std::string missing_capabilities(std::uint64_t mask) {
  const auto has = [mask](int capability) { return (mask >> capability & 1U) != 0; };
  if (has(kCapSysAdmin) || (has(kCapBpf) && has(kCapPerfmon))) return {};
  const std::string missing = has(kCapBpf)       ? "CAP_PERFMON"
                              : has(kCapPerfmon) ? "CAP_BPF"
                                                 : "CAP_BPF and CAP_PERFMON";
  return missing + " missing (run as root, or grant them)";
}

}  // namespace

Expected<void> probe_support(const std::filesystem::path& root) {
  std::vector<std::string> reasons;
  std::error_code ignored;
  if (!std::filesystem::exists(root / "sys/kernel/btf/vmlinux", ignored)) {
    reasons.emplace_back(
        "no /sys/kernel/btf/vmlinux (a kernel with CONFIG_DEBUG_INFO_BTF, and "
        "sysfs mounted)");
  }
  auto code = ErrorCode::unsupported;
  if (const std::string missing = missing_capabilities(effective_capabilities(root));
      !missing.empty()) {
    if (reasons.empty()) code = ErrorCode::permission_denied;
    reasons.push_back(missing);
  }
  if (reasons.empty()) return {};
  std::string message = "cannot count with eBPF: ";
  for (const std::string& reason : reasons)
    message += (&reason == &reasons.front() ? "" : "; ") + reason;
  return make_error(code, message);
}

Expected<void> bpf_call_support() {
  bpf_attr map{};
  // This type of map needs CAP_BPF, whatever kernel.unprivileged_bpf_disabled is.
  map.map_type = BPF_MAP_TYPE_LRU_HASH;
  map.key_size = sizeof(std::uint32_t);
  map.value_size = sizeof(std::uint32_t);
  map.max_entries = 1;
  const long fd = syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map);
  if (fd >= 0) {
    close(static_cast<int>(fd));
    return {};
  }
  if (errno == ENOSYS)
    return make_error(ErrorCode::unsupported, "cannot count with eBPF: this kernel has no bpf(2)");
  if (errno != EPERM && errno != EACCES) return {};  // loading will report it better
  const int error = errno;
  return tl::make_unexpected(Error{
      ErrorCode::permission_denied, error,
      is_in_user_namespace()
          ? "cannot count with eBPF: bpf(2) is refused, since the capabilities are those of a "
            "user namespace (run outside of it)"
          : "cannot count with eBPF: bpf(2) is refused although the capabilities are there, "
            "as by a container's seccomp filter (run outside of it, or allow bpf)"});
}

}  // namespace cowshed
