#include <algorithm>

#include <cowshed/tools/cowtop/text/container.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kShownDigits = 12;

bool is_digit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

// The ID in "docker-ID.scope", "cri-containerd-ID.scope", "libpod-ID.scope", "ID" and the like.
std::string_view id_in(std::string_view folder) {
  constexpr std::size_t kDigits = 64;
  if (folder.ends_with(".scope")) folder.remove_suffix(std::string_view(".scope").size());
  folder = folder.substr(folder.find_last_of("-:") + 1);
  const bool is_id = folder.size() == kDigits && std::ranges::all_of(folder, is_digit);
  return is_id ? folder : std::string_view();
}

// The UID in "pod0123...", "kubepods-burstable-pod0123_....slice": 36 digits, joined by '-' or '_'.
std::string pod_in(std::string_view folder) {
  constexpr std::size_t kUid = 36;
  constexpr std::string_view kPod = "pod";
  if (folder.ends_with(".slice")) folder.remove_suffix(std::string_view(".slice").size());
  const auto at = folder.rfind(kPod);
  if (at == folder.npos || folder.size() - at != kPod.size() + kUid) return {};
  std::string uid(folder.substr(at + kPod.size()));
  std::ranges::replace(uid, '_', '-');
  const bool is_uid = std::ranges::all_of(uid, [](char c) { return is_digit(c) || c == '-'; });
  return is_uid ? uid : std::string();
}

}  // namespace

Container container_of(std::string_view cgroup) {
  Container container;
  while (!cgroup.empty()) {
    const auto end = std::min(cgroup.find('/'), cgroup.size());
    const std::string_view folder = cgroup.substr(0, end);
    if (const std::string_view id = id_in(folder); !id.empty()) container.id = id;
    if (std::string pod = pod_in(folder); !pod.empty()) container.pod = std::move(pod);
    cgroup.remove_prefix(std::min(end + 1, cgroup.size()));
  }
  container.id.resize(std::min(container.id.size(), kShownDigits));
  return container;
}

std::string container_name(std::string_view cgroup) {
  const Container container = container_of(cgroup);
  return container.id.empty() ? container.pod.substr(0, kShownDigits) : container.id;
}

}  // namespace cowshed::cowtop
