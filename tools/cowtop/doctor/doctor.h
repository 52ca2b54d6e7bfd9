#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/cow/open_backend.h>

namespace cowshed::cowtop {

struct Diagnosis {
  cow::BackendChoice backend = cow::BackendChoice::automatic;
  // The pages that it counted of a ground truth (doctor/self_test.h), or why it could not.
  Expected<std::uint64_t> counted;

  bool works() const;
};

// Of each backend, the best first.  Takes some seconds, since each measures the ground truth.
std::vector<Diagnosis> diagnose();

std::string doctor_text(const std::vector<Diagnosis>& diagnoses);

}  // namespace cowshed::cowtop
