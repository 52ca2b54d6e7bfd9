#include <cowshed/tests/support/test.h>
#include <cowshed/tools/cowtop/doctor/doctor.h>

namespace cowshed::cowtop {
namespace {

TEST(Doctor, ABackendThatCountsWrongDoesNotWork) {
  Diagnosis diagnosis{cow::BackendChoice::tracepoint, 599, {}};
  EXPECT_FALSE(diagnosis.works());
  EXPECT_THAT(doctor_text({diagnosis}), HasSubstr("it counts 599"));
  EXPECT_THAT(doctor_text({diagnosis}), HasSubstr("cowtop cannot measure here"));
  diagnosis.counted = 600;
  EXPECT_TRUE(diagnosis.works());
  EXPECT_THAT(doctor_text({diagnosis}), Not(HasSubstr("cannot")));
}

TEST(Doctor, SaysWhoCanAllowEachLackAndWhatStillWorks) {
  const Diagnosis exact{cow::BackendChoice::tracepoint,
                        make_error(ErrorCode::permission_denied, "refused"),
                        {ProbeLack::capabilities, ProbeLack::seccomp}};
  const std::string text = doctor_text({exact, {cow::BackendChoice::pagemap, 600, {}}});
  EXPECT_THAT(text,
              AllOf(HasSubstr("reason: refused"), HasSubstr("--cap-add BPF --cap-add PERFMON"),
                    HasSubstr("Podman of Debian 12, and Docker before 23: --security-opt"),
                    HasSubstr("Kubernetes: securityContext: {seccompProfile"),
                    HasSubstr("does not: code, causes and objects")));
  EXPECT_THAT(text, Not(HasSubstr("lockdown")));
}

}  // namespace
}  // namespace cowshed::cowtop
