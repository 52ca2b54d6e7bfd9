#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cowshed/probes/support.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tools/cowtop/doctor.h>

namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::run;
using ::testing::HasSubstr;
using ::testing::Not;

nlohmann::json doctor(const std::vector<std::string>& before = {}) {
  std::vector<std::string> arguments = before;
  arguments.insert(arguments.end(), {COWTOP, "doctor", "--json"});
  const Finished finished = run(arguments);
  EXPECT_EQ(finished.err, "");
  EXPECT_EQ(finished.exit_status(), 0);
  return nlohmann::json::parse(finished.out);
}

TEST(CowtopDoctor, ProvesWhatWorks) {
  const auto report = doctor();
  EXPECT_EQ(report["schema"], "cowshed.doctor/1");
  ASSERT_EQ(report["backends"].size(), 2);
  const auto& exact = report["backends"][0];
  const auto& sampled = report["backends"][1];
  EXPECT_EQ(exact["backend"], "tracepoint");
  EXPECT_EQ(exact["works"], probe_support().has_value());
  if (probe_support()) {
    EXPECT_EQ(exact["proof"]["counted_pages"], 600);
  }
  EXPECT_EQ(sampled["backend"], "pagemap");
  EXPECT_EQ(sampled["works"], true);
  EXPECT_EQ(sampled["proof"]["counted_pages"], 600);
}

TEST(CowtopDoctor, SaysWhatIsLackingAndHowToGetIt) {
  const Finished finished =
      run({"setpriv", "--bounding-set", "-bpf,-sys_admin,-sys_ptrace", "--", COWTOP, "doctor"});
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  EXPECT_THAT(finished.out, HasSubstr("tracepoint backend (exact, by eBPF): does not work here"));
  EXPECT_THAT(finished.out, HasSubstr("lacks  CAP_BPF and CAP_PERFMON: run as root"));
  EXPECT_THAT(finished.out, HasSubstr("lacks  CAP_SYS_PTRACE: of other users' processes"));
  EXPECT_THAT(finished.out, HasSubstr("proof  none: cannot count with eBPF"));
  EXPECT_THAT(finished.out, HasSubstr("cowtop uses the pagemap backend here"));
}

TEST(CowtopDoctor, BadUsage) {
  const Finished finished = run({COWTOP, "doctor", "who"});
  EXPECT_EQ(finished.exit_status(), 125);
  EXPECT_EQ(finished.out, "");
}

TEST(Doctor, ABackendThatCountsWrongDoesNotWork) {
  Diagnosis diagnosis;
  diagnosis.backend = cow::BackendChoice::tracepoint;
  diagnosis.proof_pages = 599;
  EXPECT_FALSE(diagnosis.works());
  EXPECT_THAT(doctor_text({diagnosis}), HasSubstr("it counts 599"));
  EXPECT_THAT(doctor_text({diagnosis}), HasSubstr("cowtop cannot measure here"));
  diagnosis.proof_pages = 600;
  EXPECT_TRUE(diagnosis.works());
  EXPECT_THAT(doctor_text({diagnosis}), Not(HasSubstr("cannot")));
}

}  // namespace
}  // namespace cowshed::cowtop
