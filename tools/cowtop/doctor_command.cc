#include <CLI/CLI.hpp>
#include <algorithm>
#include <utility>

#include <cowshed/tools/cowtop/command_line.h>
#include <cowshed/tools/cowtop/commands.h>
#include <cowshed/tools/cowtop/complain.h>
#include <cowshed/tools/cowtop/doctor.h>
#include <cowshed/tools/cowtop/exit_status.h>
#include <cowshed/tools/cowtop/ground_truth.h>
#include <cowshed/tools/cowtop/output_file.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kDoctorDescription =
    "Says which backends work on this machine, as this user, and proves each on a process whose\n"
    "copies are known; or says why it does not work, and how to get it.";

constexpr const char* kDoctorUsage = "cowtop doctor";

constexpr const char* kDoctorFooter = R"(Examples:
  cowtop doctor
  sudo cowtop doctor                 what root would gain

Exit status: 0 if one of the backends works; 125 if none does, or bad usage.)";

}  // namespace

int doctor_command(std::vector<std::string> words) {
  if (words.size() == 1 && words[0] == kGroundTruthWord) {
    be_ground_truth();
    return 0;
  }
  CommandLine line({"cowtop doctor", kDoctorDescription, kDoctorUsage, kDoctorFooter});
  if (const auto status = line.parse(std::move(words))) return *status;
  auto file = OutputFile::open("");
  if (!file) return own_error(file.error());
  const auto diagnoses = diagnose();
  const auto written = file->write_report(doctor_text(diagnoses));
  if (!written) return own_error(written.error());
  const bool any = std::any_of(diagnoses.begin(), diagnoses.end(),
                               [](const Diagnosis& each) { return each.works(); });
  return any ? 0 : kOwnError;
}

}  // namespace cowshed::cowtop
