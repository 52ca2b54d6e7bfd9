#include <cowshed/cow/fork_copies.h>
#include <cowshed/cow/open_backend.h>
#include <cowshed/tests/cow/children.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/memory_map.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

// Calls of read(2) by all threads of this process.
std::size_t reads_so_far() { return cowshed::test::figure_of("/proc/self/io", "syscr"); }

TEST(TracepointBackend, AParentIsLookedAtOnceForAllItsNewChildren) {
  constexpr std::size_t kChildren = 500;
  auto opened = open_backend(BackendChoice::tracepoint);
  if (!opened) GTEST_SKIP() << "no tracepoints here: " << opened.error().message;
  const cowshed::test::Folder folder;
  const std::string turn = folder / "turn";
  ASSERT_EQ(mkfifo(turn.c_str(), 0600), 0);
  // A shell, not this program, whose mappings are thousands under a sanitizer.
  cowshed::test::Subprocess parent({"/bin/sh", "-c",
                                    "for round in 1 2; do read -r line <$0; i=0; while [ $i -lt $1 "
                                    "]; do (:); i=$((i + 1)); done;"
                                    "echo round $round; done; read -r line <$0",
                                    turn, std::to_string(kChildren)});
  const auto fork_all = [&](const char* said) {
    std::ofstream(turn) << '\n';
    parent.read_until(said);
  };
  Backend& backend = *opened->backend;
  fork_all("round 1");  // it is a shell by then
  ASSERT_TRUE(backend.attach({parent.pid()}));
  ASSERT_TRUE(backend.sample());
  fork_all("round 2");
  const std::size_t before = reads_so_far();
  ASSERT_GT(before, 0U);
  ASSERT_TRUE(backend.sample());
  EXPECT_LT(reads_so_far() - before, kChildren);
  EXPECT_EQ(backend.measurement().processes.size(), kChildren + 1);
}

TEST(TracepointBackend, WhatIsStillMappedOfAFileIsKnownAfterALook) {
  auto opened = open_backend(BackendChoice::tracepoint);
  if (!opened) GTEST_SKIP() << "no tracepoints here: " << opened.error().message;
  constexpr std::size_t kBytes = std::size_t{8} << 20;
  const cowshed::test::Folder folder;
  std::ofstream(folder / "data") << std::string(kBytes, 'd');
  test::PausedChild child([&] {
    const int fd = ::open((folder / "data").c_str(), O_RDONLY);
    void* at = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    std::memset(at, 1, kBytes / 4);
    ::munmap(at, kBytes / 2);
  });
  Backend& backend = *opened->backend;
  ASSERT_TRUE(backend.attach({child.pid()}));
  child.work();
  const auto held = [&]() -> std::optional<std::uint64_t> {
    EXPECT_TRUE(backend.sample());
    const auto files = backend.measurement().processes.at(0).files;
    return files.empty() ? std::nullopt : files[0].held_bytes;
  };
  while (held() != kBytes / 2) std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

TEST(TracepointBackend, OwnMemoryIsKnownAtTheBeginAndAtTheEnd) {
  auto opened = open_backend(BackendChoice::tracepoint);
  if (!opened) GTEST_SKIP() << "no tracepoints here: " << opened.error().message;
  constexpr std::size_t kBytes = std::size_t{32} << 20;
  void* shared =  // not of new, which a compiler may leave out
      ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  std::memset(shared, 'd', kBytes);
  test::PausedChild child([] {});
  Backend& backend = *opened->backend;
  ASSERT_TRUE(backend.attach({child.pid()}));
  ASSERT_TRUE(backend.sample());
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  ASSERT_TRUE(backend.sample());  // it is at rest
  const auto own = [&] { return fork_copies(backend.measurement())[0]; };
  EXPECT_LT(own().most_own_bytes.value(), kBytes / 2);
  std::memset(shared, 'e', kBytes);
  backend.want_memory();
  ASSERT_TRUE(backend.sample());
  EXPECT_GE(own().own_bytes, kBytes);
  ::munmap(shared, kBytes);
}

TEST(TracepointBackend, WhatMovedSinceTheLookIsNotTakenForGivenBack) {
  auto opened = open_backend(BackendChoice::tracepoint);
  if (!opened) GTEST_SKIP() << "no tracepoints here: " << opened.error().message;
  constexpr std::size_t kBytes = std::size_t{8} << 20;
  const cowshed::test::Folder folder;
  std::ofstream(folder / "data") << std::string(kBytes, 'd');
  const int fd = ::open((folder / "data").c_str(), O_RDONLY);
  void* at = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  void* to = ::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  test::PausedChild child([&] {
    ::mremap(at, kBytes, kBytes, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    std::memset(to, 1, kBytes / 4);
  });
  Backend& backend = *opened->backend;
  ASSERT_TRUE(backend.attach({child.pid()}));
  ASSERT_TRUE(backend.sample());
  child.work();
  do ASSERT_TRUE(backend.sample());
  while (backend.measurement().processes.at(0).files.empty());
  EXPECT_NE(backend.measurement().processes[0].files[0].held_bytes, 0);
  ::munmap(at, kBytes);
  ::munmap(to, kBytes);
  ::close(fd);
}

}  // namespace
}  // namespace cowshed::cow
