#pragma once

#include <string>
#include <string_view>

namespace cowshed::cowtop {

// The container of a process.
struct Container {
  std::string id;   // the first 12 digits, as docker ps shows it; empty: none
  std::string pod;  // UID of its Kubernetes pod, or first 12 digits of a Podman pod; empty: none
};

// Finds it in a path of /proc/PID/cgroup, as Docker, Podman, containerd and Kubernetes make them.
Container container_of(std::string_view cgroup);

// Returns how rows name it: its ID, else the pod's first digits; empty: none.
std::string container_name(std::string_view cgroup);

// Whether a text is 12 digits or more of a container's ID, or of a pod's ID or UID.
bool is_container_name(std::string_view text);
// Whether such a text names the container, or its pod.
bool is_named(const Container& container, std::string_view text);

}  // namespace cowshed::cowtop
