#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/backend.h>

namespace cowshed::cowtop {

// What something takes, and whether this machine, and this process on it, has that.
struct Requirement {
  std::string what;
  bool met = false;
  // Where it is not met: what does not work without it, and how to get it.
  std::string otherwise;
};

struct Diagnosis {
  cow::BackendChoice backend = cow::BackendChoice::automatic;
  std::vector<Requirement> needs;  // without one of them it does not work
  std::vector<Requirement> gains;  // without them it does less
  // What came of measuring a ground truth (ground_truth.h); nullopt: of the `failure`.
  std::optional<std::uint64_t> proof_pages;
  std::string failure;

  bool works() const;
};

// Of each backend, the best first.  Takes some seconds, since each measures the ground truth.
std::vector<Diagnosis> diagnose();

// For people, and for programs (schema cowshed.doctor/1).
std::string doctor_text(const std::vector<Diagnosis>& diagnoses);
std::string doctor_json(const std::vector<Diagnosis>& diagnoses);

}  // namespace cowshed::cowtop
