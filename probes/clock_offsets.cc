#include <fstream>
#include <string>
#include <unistd.h>

#include <cowshed/probes/clock_offsets.h>

namespace cowshed {
namespace {

constexpr std::int64_t kSecondNs = 1'000'000'000;

}  // namespace

ClockOffsets clock_offsets(const std::filesystem::path& root) {
  ClockOffsets offsets;
  std::ifstream file(root / "proc/self/timens_offsets");
  std::string clock;
  std::int64_t seconds = 0;
  std::int64_t ns = 0;
  while (file >> clock >> seconds >> ns) {
    (clock == "monotonic" ? offsets.monotonic_ns : offsets.boot_ns) = seconds * kSecondNs + ns;
  }
  return offsets;
}

std::uint64_t start_ticks(std::uint64_t start_boot_ns, const ClockOffsets& offsets) {
  static const std::int64_t per_second = ::sysconf(_SC_CLK_TCK);
  const std::int64_t ns = static_cast<std::int64_t>(start_boot_ns) + offsets.boot_ns;
  return static_cast<std::uint64_t>(ns) / static_cast<std::uint64_t>(kSecondNs / per_second);
}

}  // namespace cowshed
