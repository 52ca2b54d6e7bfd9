#include <cowshed/share/memfd.h>

#include "share.h"

namespace cowshed {
namespace {

// Sealing waits for whoever holds a page, as the kernel does for a moment now and then: here a
// pipe, into which the page itself was spliced.
class SealTest : public testing::Test {
 protected:
  SealTest() {
    EXPECT_EQ(pipe2(pipe_.data(), O_CLOEXEC), 0);
    EXPECT_EQ(ftruncate(file_.get(), 4096), 0);
    EXPECT_EQ(write(file_.get(), "x", 1), 1);
    off64_t begin = 0;
    EXPECT_EQ(splice(file_.get(), &begin, pipe_[1], nullptr, 4096, 0), 4096);
  }
  ~SealTest() override {
    for (const int end : pipe_) close(end);
  }

  void let_go() {
    std::array<char, 4096> page{};
    EXPECT_EQ(read(pipe_[0], page.data(), page.size()), 4096);
  }

  Descriptor file_ = make_memfd("seal", Sealable::yes);
  std::array<int, 2> pipe_{};
};

TEST_F(SealTest, WaitsLongerThanTheKernel) {
  ASSERT_NE(fcntl(file_.get(), F_ADD_SEALS, kSealed), 0);
  ASSERT_EQ(errno, EBUSY);
  std::jthread later([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    let_go();
  });
  EXPECT_TRUE(seal(file_.get())) << errno;
  EXPECT_TRUE(has_seals(file_.get(), kSealed));
}

TEST_F(SealTest, SaysThatItIsBusy) {
  EXPECT_FALSE(seal(file_.get()));
  EXPECT_EQ(errno, EBUSY);
  EXPECT_FALSE(has_seals(file_.get(), F_SEAL_WRITE));
  let_go();
  EXPECT_TRUE(seal(file_.get()));
}

}  // namespace
}  // namespace cowshed
