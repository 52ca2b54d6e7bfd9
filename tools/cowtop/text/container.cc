#include <algorithm>

#include <cowshed/tools/cowtop/text/container.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kIdDigits = 12;

bool is_digit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }
bool is_uid_digit(char c) { return is_digit(c) || c == '-'; }

bool is_id(std::string_view text) {
  constexpr std::size_t kDigits = 64;
  return text.size() == kDigits && std::ranges::all_of(text, is_digit);
}

// The ID in "docker-ID.scope", "cri-containerd-ID.scope", "libpod-ID.scope", "ID" and the like.
// conmon, which starts a container in "libpod-conmon-ID.scope", is not in it.
std::string_view id_in(std::string_view folder) {
  if (folder.find("-conmon-") != folder.npos) return {};
  if (folder.ends_with(".scope")) folder.remove_suffix(std::string_view(".scope").size());
  folder = folder.substr(folder.find_last_of("-:") + 1);
  return is_id(folder) ? folder : std::string_view();
}

// The UID in "pod0123...", "kubepods-burstable-pod0123_....slice": 36 digits, joined by '-' or '_',
// or 32 if the pod is a file of its node; the ID in Podman's "machine-libpod_pod_0123....slice".
std::string pod_in(std::string_view folder) {
  constexpr std::size_t kUid = 36;
  constexpr std::size_t kUidOfFile = 32;
  constexpr std::string_view kPod = "pod";
  if (folder.ends_with(".slice")) folder.remove_suffix(std::string_view(".slice").size());
  const auto at = folder.rfind(kPod);
  if (at == folder.npos) return {};
  std::string uid(folder.substr(at + kPod.size()));
  if (uid.starts_with('_') && is_id(std::string_view(uid).substr(1)))
    return uid.substr(1, kIdDigits);
  std::ranges::replace(uid, '_', '-');
  const bool is_uid = (uid.size() == kUid && std::ranges::all_of(uid, is_uid_digit)) ||
                      (uid.size() == kUidOfFile && std::ranges::all_of(uid, is_digit));
  return is_uid ? uid : std::string();
}

bool begins_alike(std::string_view one, std::string_view other) {
  const std::size_t size = std::min(one.size(), other.size());
  return size > 0 && one.substr(0, size) == other.substr(0, size);
}

}  // namespace

Container container_of(std::string_view cgroup) {
  Container container;
  std::string_view above;
  while (!cgroup.empty()) {
    const auto end = std::min(cgroup.find('/'), cgroup.size());
    const std::string_view folder = cgroup.substr(0, end);
    if (const std::string_view id = id_in(folder); !id.empty()) container.id = id;
    if (std::string pod = pod_in(folder); !pod.empty()) container.pod = std::move(pod);
    // Podman without systemd: "ID of the pod/libpod-ID".
    if (folder.starts_with("libpod-") && is_id(above)) container.pod = above.substr(0, kIdDigits);
    above = folder;
    cgroup.remove_prefix(std::min(end + 1, cgroup.size()));
  }
  container.id.resize(std::min(container.id.size(), kIdDigits));
  return container;
}

std::string container_name(std::string_view cgroup) {
  const Container container = container_of(cgroup);
  return container.id.empty() ? container.pod.substr(0, kIdDigits) : container.id;
}

bool is_container_name(std::string_view text) {
  return text.size() >= kIdDigits && std::ranges::all_of(text, is_uid_digit);
}

bool is_named(const Container& container, std::string_view text) {
  return begins_alike(container.id, text) || begins_alike(container.pod, text);
}

}  // namespace cowshed::cowtop
