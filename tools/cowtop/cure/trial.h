#pragma once

#include <cstdint>
#include <optional>

#include <cowshed/base/error.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/cure/outputs.h>
#include <cowshed/tools/cowtop/measure/measure_options.h>

namespace cowshed::cowtop {

struct Trial {
  std::optional<cow::Measurement> measurement;  // nullopt: the measurement failed, and said why
  Outcome outcome;
  int threads = 1;                                // the most that a process was seen to have
  std::optional<std::uint64_t> in_service_bytes;  // InService::peak_bytes()
  std::optional<int> ended_by;                    // a signal that asked cowtop to end
};

// Measures the command once, in a process of its own, without input, and keeps what it writes.
// `environment` is added to this process's.  SIGINT, SIGTERM and SIGQUIT go to the command, too.
Expected<Trial> run_trial(MeasureOptions options,
                          const std::vector<std::pair<std::string, std::string>>& environment);

}  // namespace cowshed::cowtop
