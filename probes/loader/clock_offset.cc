#include <fstream>
#include <string>

#include <cowshed/probes/loader/clock_offset.h>

namespace cowshed {

std::int64_t monotonic_offset_ns(const std::filesystem::path& root) {
  constexpr std::int64_t kSecondNs = 1'000'000'000;
  std::ifstream file(root / "proc/self/timens_offsets");
  std::string clock;
  std::int64_t seconds = 0;
  std::int64_t ns = 0;
  while (file >> clock >> seconds >> ns)
    if (clock == "monotonic") return seconds * kSecondNs + ns;
  return 0;
}

}  // namespace cowshed
