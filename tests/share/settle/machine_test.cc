#include <elf.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include <cowshed/base/memory_limits.h>
#include <cowshed/tests/share/settle/settling.h>
#include <cowshed/tests/support/conditions.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/io_ring.h>

// What takes something of the machine, or much memory.
namespace cowshed {
namespace {

using test::Blocks;
using test::is_settled;
using test::Pages;
using test::reason_at;
using test::reason_to_leave;

TEST(SettleMachine, LeavesHugePagesOfHugetlbfs) {
  const test::Conditions condition(test::Needs::reserved_pages, 8);
  if (!condition.missing().empty()) GTEST_SKIP() << condition.missing();
  const Pages pages(2_MiB, MAP_HUGETLB);
  ASSERT_TRUE(pages.exists());
  EXPECT_NE(reason_to_leave(pages), "");
}

TEST(SettleMachine, LeavesWhatUserfaultfdWatches) {
  const Pages pages(1_MiB);
  const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
  ASSERT_GE(fd, 0);
  uffdio_api api = {.api = UFFD_API, .features = 0, .ioctls = 0};
  ASSERT_EQ(ioctl(fd, UFFDIO_API, &api), 0);
  uffdio_register watched = {
      {reinterpret_cast<std::uintptr_t>(pages.data()), 1_MiB}, UFFDIO_REGISTER_MODE_MISSING, 0};
  ASSERT_EQ(ioctl(fd, UFFDIO_REGISTER, &watched), 0);
  EXPECT_EQ(reason_to_leave(pages), "is watched by userfaultfd");
  close(fd);
}

constexpr long kMseal = 462;  // Linux 6.10

TEST(SettleMachine, LeavesSealedMemory) {
  const Pages pages(1_MiB);
  if (syscall(kMseal, pages.data(), 1_MiB, 0) != 0)
    GTEST_SKIP() << "mseal: " << std::strerror(errno);
  EXPECT_EQ(reason_to_leave(pages), "is sealed (mseal)");
}

// Before Linux 6.17 nothing shows that memory is sealed.
TEST(SettleMachine, LeavesWhatIsSealedMeanwhile) {
  const Pages first(80_MiB);
  const Pages pages(80_MiB);
  long sealed = -1;
  const Settled settled = value_of(settle({.also = {first.span(), pages.span()},
                                           .heap = false,
                                           .progress = [&](std::size_t, std::size_t) {
                                             auto* const last =
                                                 std::max(first.data(), pages.data());
                                             if (sealed != 0)
                                               sealed = syscall(kMseal, last + 64_MiB, 16_MiB, 0);
                                           }}));
  if (sealed != 0) GTEST_SKIP() << "mseal: " << std::strerror(errno);
  const auto* const last = std::max(first.data(), pages.data());
  EXPECT_EQ(reason_at(settled, last + 72_MiB), "is sealed (mseal), or a sandbox refuses mremap");
  EXPECT_FALSE(is_settled(last + 72_MiB));
  EXPECT_TRUE(is_settled(last + 32_MiB));
  EXPECT_TRUE(first.is_all(7) && pages.is_all(7));
}

TEST(SettleMachine, LeavesWhatHasAProtectionKey) {
  const int key = pkey_alloc(0, 0);
  if (key < 0) GTEST_SKIP() << "pkey_alloc: " << std::strerror(errno);
  const Pages pages(1_MiB);
  ASSERT_EQ(pkey_mprotect(pages.data(), 1_MiB, PROT_READ | PROT_WRITE, key), 0);
  EXPECT_EQ(reason_to_leave(pages), "has a protection key");
  pkey_free(key);
}

TEST(SettleMachine, LeavesWhatKsmMerges) {
  const Pages pages(1_MiB);
  if (madvise(pages.data(), 1_MiB, MADV_MERGEABLE) != 0)
    GTEST_SKIP() << "MADV_MERGEABLE: " << std::strerror(errno);
  EXPECT_EQ(reason_to_leave(pages), "is merged by KSM (MADV_MERGEABLE)");
}

// A page that cannot be read, and is not absent, looks like one in swap.
TEST(SettleMachine, LeavesGuardPages) {
  const test::Conditions condition(test::Needs::guard_pages, 1);
  if (!condition.missing().empty()) GTEST_SKIP() << condition.missing();
  constexpr int kInstallGuard = 102;  // MADV_GUARD_INSTALL
  const Pages pages(1_MiB);
  ASSERT_EQ(madvise(pages.data() + 512_KiB, 4_KiB, kInstallGuard), 0) << std::strerror(errno);
  const Settled settled = value_of(settle({.also = {pages.span()}, .heap = false}));
  EXPECT_EQ(reason_at(settled, pages.data()), "cannot be read");
  const auto child = run_in_child([&]() -> std::string {
    return std::to_string(pages.data()[512_KiB]);  // SIGSEGV
  });
  EXPECT_EQ(child.signal, SIGSEGV);
  EXPECT_EQ(pages.data()[0], 7);
}

// The bytes at an address, by the core dump of a process; nothing if they are not in it.
std::string bytes_in_core(const std::string& path, const void* address, std::size_t size) {
  std::ifstream file(path, std::ios::binary);
  Elf64_Ehdr header = {};
  file.read(reinterpret_cast<char*>(&header), sizeof header);
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  for (std::size_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment = {};
    file.seekg(static_cast<std::streamoff>(header.e_phoff + i * sizeof segment));
    file.read(reinterpret_cast<char*>(&segment), sizeof segment);
    if (segment.p_type != PT_LOAD || wanted < segment.p_vaddr ||
        wanted + size > segment.p_vaddr + segment.p_filesz)
      continue;
    std::string bytes(size, '\0');
    file.seekg(static_cast<std::streamoff>(segment.p_offset + wanted - segment.p_vaddr));
    file.read(bytes.data(), static_cast<std::streamsize>(size));
    return file ? bytes : "";
  }
  return "";
}

TEST(SettleMachine, CoreDumpsHaveTheMemory) {
  std::string pattern;
  std::getline(std::ifstream("/proc/sys/kernel/core_pattern"), pattern);
  if (pattern.empty() || pattern.find('/') != pattern.npos || pattern[0] == '|')
    GTEST_SKIP() << "core dumps do not go to the working directory: " << pattern;
  using Case = std::pair<bool, bool>;
  for (const auto& [keep, write] : {Case{true, false}, Case{false, false}, Case{false, true}}) {
    const test::Folder folder;
    Blocks blocks(4_MiB);
    std::strcpy(reinterpret_cast<char*>(blocks[0]) + 2_MiB, "a known string");
    const auto child = run_in_child([&]() -> std::string {
      const rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
      setrlimit(RLIMIT_CORE, &limit);
      prctl(PR_SET_DUMPABLE, 1);
      if (chdir(folder.path().c_str()) != 0) return "chdir";
      std::ofstream("/proc/self/coredump_filter") << "0x33";  // the default
      value_of(settle({.keep_in_core_dumps = keep}));
      if (write) ++blocks[0][2_MiB + 100];
      signal(SIGABRT, SIG_DFL);
      abort();
    });
    ASSERT_EQ(child.signal, SIGABRT) << child.said;
    std::string core;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
      core = entry.path();
    ASSERT_NE(core, "");
    EXPECT_EQ(bytes_in_core(core, blocks[0] + 2_MiB, 14), keep || write ? "a known string" : "");
  }
}

TEST(SettleMachine, MovesPagesThatAreInSwap) {
  const test::Conditions condition(test::Needs::swap, 4'096);
  if (!condition.missing().empty()) GTEST_SKIP() << condition.missing();
  Blocks blocks(16_MiB);
  auto* const begin = reinterpret_cast<std::byte*>(blocks[0]) - 16;  // the block's mapping
  ASSERT_EQ(madvise(begin, 16_MiB, MADV_PAGEOUT), 0) << std::strerror(errno);
  ASSERT_GT(test::smaps_kib("Swap", begin, 16_MiB), 0U);
  value_of(settle());
  EXPECT_TRUE(is_settled(blocks[0]));
  EXPECT_EQ(blocks.damage(), 0U);
}

TEST(ReshareMachine, CopiesInSwapStayThere) {
  const test::Conditions condition(test::Needs::swap, 4'096);
  if (!condition.missing().empty()) GTEST_SKIP() << condition.missing();
  Blocks blocks(16_MiB);
  value_of(settle());
  blocks.touch(0);
  auto* const begin = blocks[0] + 1_MiB - 16;
  ASSERT_EQ(madvise(begin, 4_MiB, MADV_PAGEOUT), 0) << std::strerror(errno);
  const std::size_t swapped = test::smaps_kib("Swap", begin, 4_MiB) * 1_KiB;
  ASSERT_GT(swapped, 0U);
  const Reshared reshared = value_of(reshare());
  EXPECT_GE(reshared.swapped_bytes, swapped);
  EXPECT_GE(reshared.given_back_bytes, 11_MiB);
  EXPECT_EQ(test::smaps_kib("Swap", begin, 4_MiB) * 1_KiB, swapped);
  EXPECT_EQ(blocks.damage(), 0U);
}

// Each copy of a shared_ptr counts up and down in the page of its object.
TEST(ReshareMachine, UndoesTheCopiesOfReferenceCounts) {
  std::vector<std::shared_ptr<std::array<long, 4>>> objects(test::little_or(100'000U, 4'000'000U));
  for (auto& object : objects) object = std::make_shared<std::array<long, 4>>();
  value_of(settle());
  const auto child = run_in_child([&]() -> std::string {
    const auto copied_mib = [] {
      return test::figure_of("/proc/self/smaps_rollup", "Anonymous") / 1'024;
    };
    long sum = 0;
    for (const auto& object : objects) {
      const auto held = object;
      sum += (*held)[0];
    }
    const std::size_t before = copied_mib();
    const Reshared reshared = value_of(reshare());
    const std::size_t after = copied_mib();
    const double us = std::chrono::duration<double, std::micro>(reshared.cpu).count();
    std::cout << "copies of a child: " << before << " MiB before, " << after
              << " after; CPU a page: "
              << us * 4'096 / static_cast<double>(reshared.given_back_bytes)
              << " us, longest pause " << reshared.longest_pause.count() / 1'000 << " us\n"
              << std::flush;
    return sum == 0 && after <= before / 10 ? "fine" : "not undone";
  });
  EXPECT_EQ(child.said, "fine");
}

TEST(ReshareMachine, ComparesWithHugePages) {
  if (test::has_no_huge_pages()) GTEST_SKIP() << "this kernel cannot collapse memfd pages";
  Blocks blocks(16_MiB);
  const Settled settled = value_of(settle({.huge_pages = true}));
  EXPECT_GE(settled.huge_page_bytes, 10_MiB);
  blocks.touch(0);
  blocks[0][1_MiB] ^= 1U;
  const Reshared reshared = value_of(reshare());
  EXPECT_GE(reshared.given_back_bytes, 16_MiB - 64_KiB);
  blocks[0][1_MiB] ^= 1U;
  EXPECT_EQ(blocks.damage(), 0U);
}

TEST(SettleMachine, BuffersOfAnIoRingAreNamed) {
  const test::Conditions condition(test::Needs::io_uring, 1);
  if (!condition.missing().empty()) GTEST_SKIP() << condition.missing();
  Blocks blocks(4_MiB);
  unsigned char* const buffer = blocks[0] + 1_MiB;
  test::IoRing ring([](const char* call) { throw std::runtime_error(call); });
  const iovec registered = {buffer, 4_KiB};
  ASSERT_EQ(syscall(SYS_io_uring_register, ring.fd(), IORING_REGISTER_BUFFERS, &registered, 1), 0);
  EXPECT_THAT(settle(), Fails(ErrorCode::unsupported, "io_uring"));
  EXPECT_FALSE(is_settled(blocks[0]));

  const std::span<const unsigned char> memory(buffer, 4_KiB);
  value_of(settle({.leave = {std::as_bytes(memory)}, .io_is_at_rest = true}));
  EXPECT_TRUE(is_settled(blocks[0]));
  EXPECT_EQ(blocks.damage(), 0U);
  const int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(ring.run(IORING_OP_READ_FIXED, zeros, buffer, 4'096), 4'096);
  close(zeros);
  syscall(SYS_io_uring_register, ring.fd(), IORING_UNREGISTER_BUFFERS, nullptr, 0);
  close(ring.fd());
  EXPECT_EQ(std::count(buffer, buffer + 4'096, 0), 4'096);
}

// The limit is met when the old pages and their copies are there at once.
TEST(SettleMachine, NearTheLimitOfACgroupMovesOrFailsButIsNotKilled) {
  constexpr std::size_t kLimit = 256_MiB;
  const auto limit = [] {
    return test::Conditions(test::Needs::memory_limit, (kLimit - 32_MiB) / 8_KiB);
  };
  const auto missing = run_in_child([&] { return limit().missing(); });
  if (!missing.said.empty()) GTEST_SKIP() << missing.said;
  for (const std::size_t used : {128_MiB, 200_MiB, 236_MiB, 248_MiB, 252_MiB, 254_MiB}) {
    const auto child = run_in_child([&] {
      const test::Conditions limited = limit();
      return run_in_child([&]() -> std::string {
               Blocks blocks(1_MiB - 4_KiB, used / 1_MiB);
               const auto settled = settle();
               if (blocks.damage() != 0) return "damaged";
               if (settled) return settled->moved_bytes > used / 2 ? "moved" : "moved little";
               return std::string(to_string(settled.error().code));
             })
          .said;
    });
    EXPECT_EQ(child.signal, 0);
    if (used <= 236_MiB) EXPECT_EQ(child.said, "moved") << used;
    else EXPECT_THAT(child.said, testing::AnyOf("moved", "moved little", "out_of_memory")) << used;
  }
}

TEST(SettleMachine, WithoutOvercommitMovesOrFails) {
  std::optional<test::Setting> strict;
  if (std::getenv("COWSHED_MAY_SET_SYSCTLS") != nullptr)
    strict.emplace("/proc/sys/vm/overcommit_memory", "2");
  if (test::figure_of("/proc/meminfo", "CommitLimit") == 0 || !strict)
    GTEST_SKIP() << "COWSHED_MAY_SET_SYSCTLS is not set";
  Blocks blocks(64_MiB);
  const auto settled = settle();
  EXPECT_EQ(blocks.damage(), 0U);
  if (settled) EXPECT_TRUE(is_settled(blocks[0]));
  else EXPECT_EQ(settled.error().system_errno, ENOMEM);
  blocks.rewrite(0);
  EXPECT_THAT(unsettle(), Succeeds());
  EXPECT_EQ(blocks.damage(), 0U);
}

TEST(SettleMachine, HugePagesAreThereIfAskedFor) {
  if (test::has_no_huge_pages()) GTEST_SKIP() << "this kernel cannot collapse memfd pages";
  Blocks blocks(64_MiB);
  const Settled settled = value_of(settle({.huge_pages = true}));
  EXPECT_GE(settled.huge_page_bytes, 56_MiB);
  EXPECT_EQ(blocks.damage(), 0U);
  const auto child = run_in_child([&] {
    const long before = test::page_faults();
    std::size_t sum = 0;
    for (std::size_t at = 0; at < 64_MiB; at += 4_KiB) sum += blocks[0][at];
    return std::to_string(sum > 0 ? test::page_faults() - before : 0);
  });
  EXPECT_LT(std::stol(child.said), 1'500);
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<long>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

double fork_ms(std::size_t count) {
  std::vector<double> times;
  for (std::size_t i = 0; i < count; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const pid_t child = fork();
    if (child == 0) _exit(0);
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
            .count());
    waitpid(child, nullptr, 0);
  }
  return median(std::move(times));
}

TEST(SettleMachine, AForkWithGibibytesTakesAtMostThreeTimesAsLongAsAnEmptyOne) {
  const std::size_t bytes = test::little_or(256_MiB, 4_GiB);
  if (internal::available_memory() < bytes * 3 / 2) GTEST_SKIP() << "too little memory";
  // Both are measured by turns: the machine may be busier at one time than at another.
  const test::Child empty([](const test::Line& test) {
    while (test.hear()) test.say(std::to_string(fork_ms(11)));
    return 0;
  });
  struct Node {
    Node* next;
    std::array<long, 7> values;
  };
  Node* list = nullptr;
  for (std::size_t i = 0; i < bytes / 80; ++i) {  // with malloc's header
    auto* node = static_cast<Node*>(std::malloc(sizeof(Node)));
    *node = {list, {static_cast<long>(i)}};
    list = node;
  }
  const double before = fork_ms(5);
  const Settled settled = value_of(settle());
  std::vector<double> of_empty;
  std::vector<double> of_settled;
  for (int i = 0; i < 9; ++i) {
    empty.say("fork");
    of_empty.push_back(std::stod(empty.hear().value()));
    of_settled.push_back(fork_ms(11));
  }
  std::cout << "fork: empty " << median(of_empty) << " ms, before " << before << ", after "
            << median(of_settled) << "; moved in "
            << std::chrono::duration<double>(settled.time).count() << " s\n";
  EXPECT_LE(median(of_settled), 3 * median(of_empty));
  long sum = 0;
  std::size_t count = 0;
  for (const Node* node = list; node != nullptr; node = node->next, ++count) sum += node->values[0];
  EXPECT_EQ(count, bytes / 80);
  EXPECT_EQ(sum, static_cast<long>(count * (count - 1) / 2));
}

}  // namespace
}  // namespace cowshed
