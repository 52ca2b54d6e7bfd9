#pragma once

#include <cowshed/probes/support.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {

// Its tests are skipped, with the reason, where the probes cannot be loaded.
class NeedsProbes : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto supported = probe_support(); !supported)
      GTEST_SKIP() << supported.error().message;
  }
};

}  // namespace cowshed::test
