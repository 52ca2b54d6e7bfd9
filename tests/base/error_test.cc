#include <tuple>

#include <cowshed/base/error.h>
#include <cowshed/tests/support/test.h>

namespace cowshed {
namespace {

TEST(Error, SystemErrorNamesTheCallAndCarriesErrno) {
  const Expected<int> result = system_error("open /nowhere", ENOENT);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::system_call);
  EXPECT_EQ(result.error().system_errno, ENOENT);
  EXPECT_EQ(result.error().message, "open /nowhere: No such file or directory");
}

TEST(Error, MessagesHaveOneLineWhateverTheNames) {
  const Expected<int> named = make_error(ErrorCode::closed, "channel 'a\nb\x7f' is closed");
  EXPECT_EQ(named.error().message, "channel 'a b ' is closed");
  EXPECT_EQ(Expected<int>(system_error("open a\nb", ENOENT)).error().message,
            "open a b: No such file or directory");
}

TEST(Error, EveryCodeHasItsOwnName) {
  for (int i = 0; i <= static_cast<int>(ErrorCode::unsupported); ++i)
    EXPECT_NE(to_string(static_cast<ErrorCode>(i)), "unknown") << i;
}

TEST(Error, TheValueThatIsNotThereSaysWhy) {
  const Expected<int> failed = make_error(ErrorCode::released, "object 'x' was released");
  try {
    std::ignore = failed.value();
    ADD_FAILURE() << "there is no value";
  } catch (const std::exception& failure) {
    EXPECT_STREQ(failure.what(), "object 'x' was released");
  }
  try {
    std::ignore = Expected<std::unique_ptr<int>>(failed.map([](int) { return nullptr; })).value();
    ADD_FAILURE() << "there is no value";
  } catch (const tl::bad_expected_access<Error>& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::released);
  }
}

}  // namespace
}  // namespace cowshed
