#include <cowshed/tests/support/test.h>
#include <cowshed/tools/cowtop/doctor/doctor.h>

namespace cowshed::cowtop {
namespace {

TEST(Doctor, ABackendThatCountsWrongDoesNotWork) {
  Diagnosis diagnosis{cow::BackendChoice::tracepoint, 599};
  EXPECT_FALSE(diagnosis.works());
  EXPECT_THAT(doctor_text({diagnosis}), HasSubstr("it counts 599"));
  EXPECT_THAT(doctor_text({diagnosis}), HasSubstr("cowtop cannot measure here"));
  diagnosis.counted = 600;
  EXPECT_TRUE(diagnosis.works());
  EXPECT_THAT(doctor_text({diagnosis}), Not(HasSubstr("cannot")));
}

}  // namespace
}  // namespace cowshed::cowtop
