#include <algorithm>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/command_line.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/commands/commands.h>
#include <cowshed/tools/cowtop/doctor/doctor.h>
#include <cowshed/tools/cowtop/doctor/self_test.h>
#include <cowshed/tools/cowtop/io/output_file.h>

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

Expected<int> doctor_command(std::vector<std::string> words) {
  if (words.size() == 1 && words[0] == kGroundTruthWord) {
    be_ground_truth();
    return 0;
  }
  CommandLine line({"cowtop doctor", kDoctorDescription, kDoctorUsage, kDoctorFooter});
  TRY(const auto status, line.parse(std::move(words)));
  if (status) return *status;
  TRY(auto file, OutputFile::open(""));
  const auto diagnoses = diagnose();
  TRY_VOID(file.write_report(doctor_text(diagnoses)));
  const bool any = std::ranges::any_of(diagnoses, &Diagnosis::works);
  return any ? 0 : kOwnError;
}

}  // namespace cowshed::cowtop
