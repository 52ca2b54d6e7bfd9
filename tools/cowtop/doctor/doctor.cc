#include <algorithm>
#include <fmt/format.h>
#include <sys/utsname.h>
#include <thread>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/doctor/doctor.h>
#include <cowshed/tools/cowtop/doctor/self_test.h>

namespace cowshed::cowtop {
namespace {

Expected<std::uint64_t> count_by(cow::BackendChoice backend) {
  TRY(auto opened, cow::open_backend(backend));
  return measure_ground_truth(*opened.backend);
}

Diagnosis diagnosis_of(cow::BackendChoice backend) {
  Diagnosis diagnosis{backend, count_by(backend)};
  // On a busy machine the sampled backend may sample at the wrong time.
  const int more_tries = backend == cow::BackendChoice::pagemap ? 2 : 0;
  for (int i = 0; i < more_tries && !diagnosis.works(); ++i) diagnosis.counted = count_by(backend);
  return diagnosis;
}

const char* name_of(cow::BackendChoice backend) {
  return backend == cow::BackendChoice::tracepoint ? "tracepoint" : "pagemap";
}

}  // namespace

bool Diagnosis::works() const { return counted && *counted == kGroundTruthPages; }

std::vector<Diagnosis> diagnose() {
  return {diagnosis_of(cow::BackendChoice::tracepoint), diagnosis_of(cow::BackendChoice::pagemap)};
}

std::string doctor_text(const std::vector<Diagnosis>& diagnoses) {
  utsname system{};
  ::uname(&system);
  std::string text =
      fmt::format("cowtop {} on Linux {}, {}, {} CPUs\n", COWSHED_VERSION, system.release,
                  system.machine, std::thread::hardware_concurrency());
  for (const Diagnosis& each : diagnoses) {
    const bool is_exact = each.backend == cow::BackendChoice::tracepoint;
    text += fmt::format("\n{} backend ({}): {}\n", name_of(each.backend),
                        is_exact ? "exact, by eBPF" : "sampled, by /proc",
                        each.works() ? "works" : "does not work here");
    text +=
        each.counted
            ? fmt::format("  proof: of two children, one wrote to {} pages more: it counts {}\n",
                          kGroundTruthPages, *each.counted)
            : fmt::format("  reason: {}\n", each.counted.error().message);
  }
  const auto best = std::ranges::find_if(diagnoses, &Diagnosis::works);
  return text + (best == diagnoses.end()
                     ? "\ncowtop cannot measure here\n"
                     : fmt::format("\ncowtop uses the {} backend here\n", name_of(best->backend)));
}

}  // namespace cowshed::cowtop
