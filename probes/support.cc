#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
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
    if (line.rfind("CapEff:", 0) == 0 && (std::istringstream(line.substr(7)) >> std::hex >> mask)) {
      return mask;
    }
  }
  return 0;
}

std::string missing_capabilities(std::uint64_t mask) {
  const auto has = [mask](int capability) { return (mask >> capability & 1U) != 0; };
  if (has(kCapSysAdmin) || (has(kCapBpf) && has(kCapPerfmon))) {
    return {};
  }
  const std::string missing = has(kCapBpf)       ? "CAP_PERFMON"
                              : has(kCapPerfmon) ? "CAP_BPF"
                                                 : "CAP_BPF and CAP_PERFMON";
  return missing + " missing (run as root, or grant them)";
}

}  // namespace

Expected<void> probe_support(const std::filesystem::path& root) {
  std::vector<std::string> reasons;
#if !defined(__x86_64__)
  reasons.emplace_back("the page fault tracepoints are x86-64's");
#endif
  std::error_code ignored;
  if (!std::filesystem::exists(root / "sys/kernel/btf/vmlinux", ignored)) {
    reasons.emplace_back(
        "no /sys/kernel/btf/vmlinux (a kernel with CONFIG_DEBUG_INFO_BTF, and "
        "sysfs mounted)");
  }
  auto code = ErrorCode::unsupported;
  if (const std::string missing = missing_capabilities(effective_capabilities(root));
      !missing.empty()) {
    if (reasons.empty()) {
      code = ErrorCode::permission_denied;
    }
    reasons.push_back(missing);
  }
  if (reasons.empty()) {
    return {};
  }
  std::string message = "cannot count with eBPF: ";
  for (const std::string& reason : reasons) {
    message += (&reason == &reasons.front() ? "" : "; ") + reason;
  }
  return make_error(code, message);
}

}  // namespace cowshed
