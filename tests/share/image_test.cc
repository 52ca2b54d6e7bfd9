#include <climits>
#include <sys/mount.h>
#include <sys/personality.h>

#include <cowshed/share/image.h>

#include "../support/image_objects.h"
#include "../support/subprocess.h"
#include "image_files.h"
#include "share.h"

namespace cowshed {
namespace {

namespace fs = std::filesystem;
using test::fill;
using test::Folder;
using test::ImageBytes;
using test::save_filled;
using test::Sums;

TEST(Image, IsReadByAnotherProgram) {
  const Folder folder;
  const Sums sums = save_filled(folder / "image");
  EXPECT_THAT(folder.names(), ElementsAre("image"));
  const auto finished = test::run({IMAGE_READER, folder / "image"});
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  EXPECT_EQ(finished.out, "index " + std::to_string(sums.nodes) + " " + std::to_string(sums.words) +
                              " " + std::to_string(sums.table) + " " + std::to_string(sums.array) +
                              " not_spawn_safe wrong_type not_published 0\n");
}

TEST(Image, GivesPointersToCodeToTheSameProgramAtTheSameAddressesOnly) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers choose the addresses of a program";
#endif
  char randomised = '0';
  std::ifstream("/proc/sys/kernel/randomize_va_space") >> randomised;
  if (randomised != '2')
    GTEST_SKIP() << "addresses are not randomised here (kernel.randomize_va_space)";
  const Folder folder;
  const std::vector<std::string> find = {IMAGE_READER, "find", folder / "image"};
  const auto fixed = [] { personality(ADDR_NO_RANDOMIZE); };
  ASSERT_EQ(test::run({IMAGE_READER, "save", folder / "image"}, fixed).exit_status(), 0);
  EXPECT_EQ(test::run(find, fixed).out, "found\n");
  EXPECT_EQ(test::run(find).out, "not_spawn_safe\n");
}

TEST(Image, EndsWhoWritesToItOrReadsWhatWasCutOff) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the signals belong to the sanitizer";
#endif
  const Folder folder;
  save_filled(folder / "image");
  const auto arena = open_image(folder / "image");
  ASSERT_TRUE(arena);
  const auto nodes = find<test::Node>("nodes").value();
  const auto writes = run_in_child([&]() -> std::string {
    const_cast<test::Node&>(*nodes).value = 1;
    return "wrote";
  });
  EXPECT_EQ(writes.signal, SIGSEGV);
  const auto reads = run_in_child([&] {
    fs::resize_file(folder / "image", 4096);
    return std::to_string(nodes->value);
  });
  EXPECT_EQ(reads.signal, SIGBUS);
}

class ImageInMode : public testing::TestWithParam<FreezeMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, ImageInMode,
                         testing::Values(FreezeMode::strict, FreezeMode::lenient),
                         [](const auto& mode) {
                           return mode.param == FreezeMode::strict ? "strict" : "lenient";
                         });

TEST_P(ImageInMode, IsAFrozenArena) {
  const Folder folder;
  ArenaStats before;
  std::byte* base = nullptr;
  {
    Arena arena = make_arena();
    fill(arena);
    ASSERT_TRUE(arena.freeze());
    ASSERT_TRUE(save_image(arena, folder / "image"));
    before = arena.stats();
    base = arena.base();
  }
  const auto arena = open_image(folder / "image", {.mode = GetParam()});
  ASSERT_TRUE(arena) << arena.error().message;
  EXPECT_EQ(arena->name(), "index");
  EXPECT_EQ(arena->base(), base);
  const ArenaStats stats = arena->stats();
  EXPECT_EQ(stats.capacity, before.capacity);
  EXPECT_EQ(stats.used, before.used);
  EXPECT_EQ(stats.live_bytes, before.live_bytes);
  EXPECT_EQ(stats.live_allocations, before.live_allocations);
  EXPECT_EQ(stats.hole_bytes, before.hole_bytes);
  EXPECT_EQ(stats.generation, 1U);
  EXPECT_EQ(stats.huge_page_bytes, 0U);
  EXPECT_EQ(stats.small_page_bytes, 0U);
  EXPECT_TRUE(stats.frozen);
  EXPECT_EQ(stats.mode, GetParam());
  // Saved by this very program, at these addresses.
  const auto pmr = find<test::PmrNumbers>("pmr");
  ASSERT_TRUE(pmr) << pmr.error().message;
  EXPECT_EQ((*pmr)->size(), 100U);
  EXPECT_TRUE(arena->contains(&**pmr));
  EXPECT_TRUE(arena->prefault());
  EXPECT_EQ(arena->private_bytes().value(), 0U);
  // Found twice, it is the same array.
  const auto array = find<std::span<const std::uint64_t>>("array");
  ASSERT_TRUE(array);
  EXPECT_EQ(*array, find<std::span<const std::uint64_t>>("array").value());
  EXPECT_EQ((*array)->size(), 3000U);
  const auto child = run_in_child([&] {
    return std::to_string((**array)[2999] + arena->private_bytes().value()) + " " +
           std::to_string(test::sum_of(*find<test::Words>("words").value()));
  });
  EXPECT_EQ(child.said,
            "3004 " + std::to_string(test::sum_of(*find<test::Words>("words").value())));
}

TEST(Image, KeepsItsFileFromALenientArenasStores) {
  const Folder folder;
  save_filled(folder / "image");
  const auto arena = open_image(folder / "image", {.mode = FreezeMode::lenient});
  ASSERT_TRUE(arena);
  const auto nodes = find<test::Node>("nodes").value();
  const_cast<test::Node&>(*nodes).value += 1;
  EXPECT_EQ(arena->private_bytes().value(), 4096U);
}

TEST(Image, IsThawedAndSavedAgain) {
  const Folder folder;
  const Sums sums = save_filled(folder / "image");
  {
    auto arena = open_image(folder / "image", {.mode = FreezeMode::lenient});
    ASSERT_TRUE(arena);
    const_cast<test::Node&>(*find<test::Node>("nodes").value()).value += 1000;
    ASSERT_TRUE(arena->thaw());
    EXPECT_EQ(save_image(*arena, folder / "thawed").error().code, ErrorCode::arena_not_frozen);
    ASSERT_TRUE(publish("more", arena->make<std::uint64_t>(77).value()));
    const auto refrozen = arena->refreeze();
    ASSERT_TRUE(refrozen) << refrozen.error().message;
    EXPECT_EQ(arena->private_bytes().value(), 0U);
    ASSERT_TRUE(save_image(*arena, folder / "image"));
  }
  const auto arena = open_image(folder / "image");
  ASSERT_TRUE(arena);
  EXPECT_EQ(arena->stats().generation, 2U);
  EXPECT_EQ(*find<std::uint64_t>("more").value(), 77U);
  EXPECT_EQ(test::sum_of(&*find<test::Node>("nodes").value()), sums.nodes + 1000);
  EXPECT_THAT(folder.names(), ElementsAre("image"));
}

TEST(Image, NeedsAFrozenArena) {
  const Folder folder;
  const Arena arena = make_arena();
  EXPECT_EQ(save_image(arena, folder / "image").error().code, ErrorCode::arena_not_frozen);
  EXPECT_THAT(folder.names(), IsEmpty());
}

TEST(Image, OfAnEmptyArena) {
  const Folder folder;
  {
    Arena arena = make_arena();
    ASSERT_TRUE(arena.freeze());
    ASSERT_TRUE(save_image(arena, folder / "image"));
  }
  const auto arena = open_image(folder / "image");
  ASSERT_TRUE(arena) << arena.error().message;
  EXPECT_EQ(arena->stats().used, 0U);
}

// 64 MiB given back, 64 MiB of zeros.
TEST(Image, IsSparse) {
  const Folder folder;
  std::vector<std::size_t> told;
  {
    Arena arena = make_arena(256_MiB);
    void* freed = arena.allocate(64_MiB);
    const auto zeros = arena.make_array<std::uint64_t>(8_MiB).value();
    ASSERT_TRUE(publish("zeros", zeros));
    arena.deallocate(freed, 64_MiB);
    ASSERT_TRUE(arena.freeze());
    ASSERT_TRUE(save_image(arena, folder / "image", [&](std::size_t done, std::size_t total) {
      told.push_back(done);
      EXPECT_LE(done, total);
    }));
  }
  ASSERT_THAT(told, Not(IsEmpty()));
  struct stat status{};
  ASSERT_EQ(stat((folder / "image").c_str(), &status), 0);
  EXPECT_EQ(told.back(), static_cast<std::size_t>(status.st_size) - 2_MiB);
  EXPECT_GE(told.back(), 64_MiB);
  EXPECT_LT(static_cast<std::size_t>(status.st_blocks) * 512, 1_MiB);
  const auto arena = open_image(folder / "image");
  ASSERT_TRUE(arena);
  EXPECT_EQ((*find<std::span<const std::uint64_t>>("zeros"))->size(), 8_MiB);
}

// What an open costs: the bytes and calls of read(2), and the page faults.
struct Cost {
  long read_bytes = 0;
  long read_calls = 0;
  long faults = 0;
  long own_bytes = 0;  // that this itself reads: the next one counts them

  static Cost now() {
    Cost cost;
    std::ifstream file("/proc/self/io");
    const std::string text(std::istreambuf_iterator<char>(file), {});
    cost.own_bytes = static_cast<long>(text.size());
    std::istringstream io(text);
    std::string key;
    for (long value = 0; io >> key >> value;)
      if (key == "rchar:") cost.read_bytes = value;
      else if (key == "syscr:") cost.read_calls = value;
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    cost.faults = usage.ru_minflt + usage.ru_majflt;
    return cost;
  }
};

// The least of some: what else goes on in the process may fault too.
Cost cost_of_opening(const fs::path& path) {
  Cost least;
  for (int i = 0; i < 8; ++i) {
    const Cost before = Cost::now();
    const auto arena = open_image(path);
    const Cost after = Cost::now();
    EXPECT_TRUE(arena) << arena.error().message;
    least = {after.read_bytes - before.read_bytes - before.own_bytes,
             after.read_calls - before.read_calls,
             i == 0 ? after.faults - before.faults
                    : std::min(least.faults, after.faults - before.faults),
             0};
  }
  return least;
}

TEST(Image, IsOpenedAtACostThatIsIndependentOfItsSize) {
  const Folder folder;
  save_filled(folder / "small");
  save_filled(folder / "large");
  const ImageBytes bytes(folder / "large");
  // 256 GiB of zeros.
  bytes.forge([](auto& header, auto& arena) {
    arena.description.used = arena.description.capacity = 256_GiB;
    arena.description.segments.front().run.end = 256_GiB;
    header.payload = 4_MiB;
  });
  bytes.resize(4_MiB + 256_GiB);
  const Cost small = cost_of_opening(folder / "small");
  const Cost large = cost_of_opening(folder / "large");
  if (small.read_calls == 0) GTEST_SKIP() << "this kernel does not account I/O (/proc/self/io)";
  EXPECT_EQ(small.read_bytes, large.read_bytes);
  EXPECT_EQ(small.read_calls, large.read_calls);
  EXPECT_LE(large.faults, small.faults + 4);
}

TEST(Image, ReplacesAFileAsAWhole) {
  const Folder folder;
  const Sums sums = save_filled(folder / "image");
  const auto arena = open_image(folder / "image");
  ASSERT_TRUE(arena);
  const mode_t before = umask(027);
  {
    // Another one, of other content, at the same path.
    Arena other = make_arena();
    ASSERT_TRUE(publish("other", other.make<int>(1).value()));
    ASSERT_TRUE(other.freeze());
    fs::create_symlink("image", folder / "link");
    EXPECT_TRUE(save_image(other, folder / "image"));
    EXPECT_TRUE(save_image(other, folder / "link"));
  }
  umask(before);
  EXPECT_EQ(test::sum_of(&*find<test::Node>("nodes").value()), sums.nodes);
  EXPECT_EQ(test::sum_of(*find<test::Words>("words").value()), sums.words);
  EXPECT_FALSE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(fs::status(folder / "image").permissions(), fs::perms(0640));
  EXPECT_THAT(folder.names(), UnorderedElementsAre("image", "link"));
  EXPECT_TRUE(open_image(folder / "image"));
}

TEST(Image, IsOpenedThroughALink) {
  const Folder folder;
  save_filled(folder / "image");
  fs::create_symlink("image", folder / "link");
  EXPECT_TRUE(open_image(folder / "link"));
}

TEST(Image, ThatCannotBeReadOrWritten) {
  const Folder folder;
  save_filled(folder / "image");
  fs::permissions(folder / "image", fs::perms::none);
  fs::permissions(folder.path(), fs::perms(0755));
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  const auto child = run_in_child([&]() -> std::string {
    if (geteuid() == 0 && (setegid(65534) != 0 || seteuid(65534) != 0))
      return "cannot become nobody";
    const int opened = open_image(folder / "image").error().system_errno;
    const int saved =
        geteuid() == 65534 ? save_image(arena, folder / "new").error().system_errno : EACCES;
    return std::to_string(opened) + " " + std::to_string(saved);
  });
  EXPECT_EQ(child.said, std::to_string(EACCES) + " " + std::to_string(EACCES));
}

TEST(Image, LeavesNothingWhereTheFileMayNotBeSoLarge) {
  const Folder folder;
  save_filled(folder / "image");
  const auto size = fs::file_size(folder / "image");
  Arena arena = make_arena();
  ASSERT_TRUE(publish("full", arena.make_array<std::uint64_t>(1_MiB).value()));
  ASSERT_TRUE(arena.freeze());
  const auto child = run_in_child([&]() -> std::string {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{size + 1_MiB, size + 1_MiB};
    setrlimit(RLIMIT_FSIZE, &limit);
    return std::to_string(save_image(arena, folder / "image").error().system_errno);
  });
  EXPECT_EQ(child.said, std::to_string(EFBIG));
  EXPECT_THAT(folder.names(), ElementsAre("image"));
  EXPECT_EQ(fs::file_size(folder / "image"), size);
}

TEST(Image, LeavesNothingOnAFullDisk) {
  const Folder folder;
  if (mount("none", folder.path().c_str(), "tmpfs", 0, "size=4m") != 0)
    GTEST_SKIP() << "a small file system cannot be mounted: " << std::strerror(errno);
  Arena arena = make_arena();
  const auto words = arena.make_array<std::uint64_t>(1_MiB).value();
  std::iota(words.begin(), words.end(), 1);
  ASSERT_TRUE(arena.freeze());
  const auto saved = save_image(arena, folder / "image");
  const auto names = folder.names();
  umount(folder.path().c_str());
  ASSERT_FALSE(saved);
  EXPECT_EQ(saved.error().system_errno, ENOSPC);
  EXPECT_THAT(saved.error().message, HasSubstr("image cannot be written: No space left"));
  EXPECT_THAT(names, IsEmpty());
}

TEST(Image, IsOpenedByOneOfManyThreads) {
  const Folder folder;
  save_filled(folder / "image");
  std::array<std::optional<Expected<Arena>>, 4> results;
  {
    std::vector<std::jthread> threads;
    for (auto& result : results)
      threads.emplace_back([&] { result.emplace(open_image(folder / "image")); });
  }
  int opened = 0;
  for (const auto& result : results) {
    opened += result->has_value() ? 1 : 0;
    EXPECT_TRUE(*result || result->error().code == ErrorCode::address_taken)
        << result->error().message;
  }
  EXPECT_EQ(opened, 1);
}

TEST(Image, HasTheLongestNameThatThereIs) {
  const Folder folder;
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  const std::string name(NAME_MAX, 'n');
  EXPECT_TRUE(save_image(arena, folder / name.c_str()));
  EXPECT_THAT(folder.names(), ElementsAre(name));
}

TEST(Image, IsSavedInAFolderThatCannotBeSynced) {
  const Folder folder;
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  if (geteuid() == 0) ASSERT_EQ(chown(folder.path().c_str(), 65534, 65534), 0);
  fs::permissions(folder.path(), fs::perms::owner_write | fs::perms::owner_exec);
  const auto child = run_in_child([&]() -> std::string {
    if (geteuid() == 0 && (setegid(65534) != 0 || seteuid(65534) != 0))
      return "cannot become nobody";
    const auto saved = save_image(arena, folder / "image");
    return saved ? "saved" : saved.error().message;
  });
  fs::permissions(folder.path(), fs::perms::owner_all);
  EXPECT_EQ(child.said, "saved");
}

}  // namespace
}  // namespace cowshed
