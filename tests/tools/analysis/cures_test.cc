#include <gtest/gtest.h>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/analysis/cures.h>

namespace cowshed::cowtop {
namespace {

// What `cowtop cure` says of a Python program of which `mib` are shared, and copied.
std::string advised(std::uint64_t mib) {
  Summary summary;
  summary.sharers = 1;
  summary.copied_bytes = mib << 20;
  summary.groups.resize(1);
  summary.groups[0].shared_bytes = mib << 20;
  return cures_for({}, summary, Language::python).at(0).keep;
}

TEST(Cures, CowshedRunAlsoFreezesWhoHoldsALittleLess) {
  EXPECT_EQ(advised(1000), "cowshed run --");
  EXPECT_EQ(advised(129), "cowshed run --");
  EXPECT_EQ(advised(127), "cowshed run --");
  EXPECT_EQ(advised(80), "cowshed run --above 32MiB --");
  EXPECT_EQ(advised(37), "cowshed run --above 16MiB --");
  EXPECT_EQ(advised(1), "cowshed run --above 1MiB --");
}

}  // namespace
}  // namespace cowshed::cowtop
