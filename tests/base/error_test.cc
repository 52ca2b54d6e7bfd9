#include <cerrno>
#include <gtest/gtest.h>

#include <cowshed/base/error.h>

namespace cowshed {
namespace {

TEST(Error, SystemErrorNamesTheCallAndCarriesErrno) {
  const Expected<int> result = system_error("open /nowhere", ENOENT);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::system_call);
  EXPECT_EQ(result.error().system_errno, ENOENT);
  EXPECT_EQ(result.error().message, "open /nowhere: No such file or directory");
}

TEST(Error, EveryCodeHasItsOwnName) {
  for (int i = 0; i <= static_cast<int>(ErrorCode::unsupported); ++i) {
    EXPECT_NE(to_string(static_cast<ErrorCode>(i)), "unknown") << i;
  }
}

}  // namespace
}  // namespace cowshed
