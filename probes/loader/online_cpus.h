#pragma once

#include <filesystem>
#include <vector>

namespace cowshed {

// Returns the numbers of the online CPUs; only 0 if /sys does not list them.
std::vector<int> online_cpus(const std::filesystem::path& root = "/");

}  // namespace cowshed
