#include <algorithm>
#include <array>
#include <memory>
#include <stdexcept>

#include <cowshed/base/size_literals.h>

#include "application.h"
#include "applications_loader.h"
#include "applications_search.h"
#include "applications_snapshot.h"
#include "machine.h"
#include "program.h"

// Whole programs, as people write them, with an arena and without.
namespace cowshed::bench {
namespace {

using nlohmann::json;
using namespace cowshed::size_literals;

constexpr std::size_t kMostMemory = 3_GiB;  // more than any run takes

struct ApplicationKind {
  const char* name;
  Application (*make)(bool quick, Report& report);
  MakeWork make_work;
};

constexpr std::array<ApplicationKind, 3> kApplications = {
    {{"search service", search_service, make_search_work},
     {"snapshot", snapshot, make_snapshot_work},
     {"data loader", data_loader, make_loader_work}}};

void measure_applications(const Options& options, Report& report) {
  report.setting("memory",
                 "PSS of the forked processes and of the one that forked them, after the work");
  report.setting("copied pages",
                 "of the forked processes during the work, by cowshed::cow::Meter, in a run of its "
                 "own; each run is a fresh process");
  if (!options.quick) touch_memory(kMostMemory);
  for (const ApplicationKind& kind : kApplications) {
    if (!options.wants(kind.name)) continue;
    measure_application(kind.make(options.quick, report), options.pairs, report);
  }
}

std::unique_ptr<SubjectWork> make_application(const json& configuration) {
  const auto* kind = std::find_if(
      kApplications.begin(), kApplications.end(),
      [&](const ApplicationKind& known) { return configuration["application"] == known.name; });
  if (kind == kApplications.end()) throw std::runtime_error("there is no such application");
  return kind->make_work(configuration);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(
      argc, argv,
      {.name = "applications",
       .question = "what whole programs take that share their data with forked processes",
       .pairs = 9,
       .measure = cowshed::bench::measure_applications,
       .make_work = cowshed::bench::make_application});
}
