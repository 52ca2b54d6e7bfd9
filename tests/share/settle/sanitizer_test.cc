#include <cowshed/share/settle.h>
#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

TEST(Settle, RefusesASanitizer) {
  EXPECT_THAT(settle(), Fails(ErrorCode::unsupported, "Sanitizer"));
  EXPECT_THAT(unsettle(), Fails(ErrorCode::unsupported, "Sanitizer"));
}

}  // namespace
}  // namespace cowshed
