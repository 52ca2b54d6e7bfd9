#pragma once

#include <string>
#include <string_view>

namespace cowshed::cowtop {

// The container of a process.
struct Container {
  std::string id;   // the first 12 digits, as docker ps shows it; empty: none
  std::string pod;  // the UID of its Kubernetes pod; empty: none
};

// Finds it in a path of /proc/PID/cgroup, as Docker, Podman, containerd and Kubernetes make them.
Container container_of(std::string_view cgroup);

// Returns how rows name it: its ID, else the pod's first digits; empty: none.
std::string container_name(std::string_view cgroup);

}  // namespace cowshed::cowtop
