#pragma once

#include <array>
#include <csignal>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

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
};

// During its life, signals that ask to end do not end this process.  They are noted, and passed to
// the command of run_trial().  One at a time.
class PassedSignals {
 public:
  PassedSignals();
  PassedSignals(const PassedSignals&) = delete;
  PassedSignals& operator=(const PassedSignals&) = delete;
  ~PassedSignals() { give_back(); }

  // Returns the last signal.
  static std::optional<int> asked_by();
  // For a forked child, which such a signal ends as it would have ended this process.
  void give_back() const;

 private:
  static constexpr std::array kSignals = {SIGINT, SIGTERM, SIGQUIT, SIGHUP};
  std::array<struct sigaction, kSignals.size()> before_{};
};

// Measures the command once, in a process of its own, without input, and keeps what it writes.
// `environment` is added to this process's.
Expected<Trial> run_trial(MeasureOptions options,
                          const std::vector<std::pair<std::string, std::string>>& environment,
                          const PassedSignals& signals);

}  // namespace cowshed::cowtop
