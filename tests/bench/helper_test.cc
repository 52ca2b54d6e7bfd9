#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <gtest/gtest.h>
#include <iterator>
#include <stdexcept>
#include <sys/wait.h>

#include <cowshed/bench/helper.h>

namespace cowshed::bench {
namespace {

std::ptrdiff_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return std::distance(begin(all), end(all));
}

TEST(Helper, EndsThoughALaterOneGoesOn) {
  const auto watch = [](int end, auto ready) { return ready() && Helper::has_ended(end, -1); };
  Helper first(watch);
  Helper second(watch);
  EXPECT_TRUE(first.has_done());
  EXPECT_TRUE(second.has_done());
}

TEST(Helper, LeavesNothingBehindWhereItCannotBegin) {
  const auto before = open_descriptors();
  EXPECT_THROW(Helper([](int, auto) { return false; }), std::runtime_error);
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

}  // namespace
}  // namespace cowshed::bench
