#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

// Tells the memory of a program at work from that of its end, when workers copy what they free.
class InService {
 public:
  // Call it now and then; `ns`: CLOCK_MONOTONIC.
  void look(std::uint64_t ns, const cow::Measurement& now);

  // The peak (PSS) before the last workers began to end.  nullopt: it is the peak, or not known.
  std::optional<std::uint64_t> peak_bytes(const cow::Measurement& at_end) const;

 private:
  using Figures = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

  Figures peaks_;                                   // each when it was first seen
  std::map<cow::ProcessId, Figures> copied_pages_;  // each when it was last seen
};

}  // namespace cowshed::cowtop
