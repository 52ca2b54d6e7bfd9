#pragma once

#include <filesystem>
#include <vector>

namespace cowshed {

// The numbers of the CPUs that are online now; CPU 0 alone where /sys does not say.
std::vector<int> online_cpus(const std::filesystem::path& root = "/");

}  // namespace cowshed
