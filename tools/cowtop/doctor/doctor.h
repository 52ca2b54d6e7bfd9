#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/cow/open_backend.h>
#include <cowshed/probes/support.h>

namespace cowshed::cowtop {

struct Diagnosis {
  cow::BackendChoice backend = cow::BackendChoice::automatic;
  // The pages that it counted in the self test (doctor/self_test.h), or the error.
  Expected<std::uint64_t> counted;
  std::vector<ProbeLack> lacks;  // of the exact backend

  bool works() const;
};

// Tests each backend, the best first.  Takes some seconds.
std::vector<Diagnosis> diagnose();

// Whether KSM merges pages now; nullopt: this kernel has none.
std::optional<bool> ksm_runs();

std::string doctor_text(const std::vector<Diagnosis>& diagnoses);

}  // namespace cowshed::cowtop
