#include <array>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iterator>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <optional>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <cowshed/base/size_literals.h>
#include <cowshed/cow/gtest_matchers.h>
#include <cowshed/cow/meter.h>
#include <cowshed/cow/process_copies.h>
#include <cowshed/tests/cow/meter_library.h>
#include <cowshed/tests/cow/paused_child.h>

// Which lines of code a Meter says copied.
namespace cowshed::cow {
namespace {

using test::PausedChild;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr uid_t kNobody = 65534;

[[gnu::noinline]] void write_pages(char* memory, std::size_t from, std::size_t to) {
  for (std::size_t page = from; page < to; ++page) {
    memory[page * kPageSize] += 1;  // kWriteLine
  }
}
constexpr int kWriteLine = __LINE__ - 3;

[[gnu::noinline]] void write_two_pages(char* memory) {
  memory[0] += 1;
  memory[kPageSize] += 1;
}
constexpr int kFirstOfTwoLine = __LINE__ - 3;

[[gnu::always_inline]] inline void inlined_write(char* memory) {
  *static_cast<volatile char*>(memory) = 7;
}
constexpr int kInlinedLine = __LINE__ - 2;

[[gnu::noinline]] void write_inlined(char* memory) {
  inlined_write(memory);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}
constexpr int kInlinerLine = __LINE__ - 3;

[[gnu::noinline]] void read_into(int from, char* memory) {
  (void)!::read(from, memory, 1);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}
constexpr int kReadLine = __LINE__ - 3;

[[gnu::noinline]] void fill(char* memory, std::size_t bytes) {
  std::memset(memory, 5, bytes);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}
constexpr int kFillLine = __LINE__ - 3;

std::string here(int line) { return "meter_code_test.cc:" + std::to_string(line); }

// Of the frame of this file at that line.
auto frame_at(int line, std::string_view function) {
  return AllOf(Field(&Frame::line, line),
               Field(&Frame::file, ::testing::EndsWith("meter_code_test.cc")),
               Field(&Frame::function, HasSubstr(std::string(function))));
}

class MeterCode : public ::testing::Test {
 protected:
  static constexpr std::size_t kPages = 64;
  static constexpr std::size_t kBytes = kPages * kPageSize;

  MeterCode() {
    ::madvise(memory_, kBytes, MADV_NOHUGEPAGE);
    std::memset(memory_, 1, kBytes);
  }
  ~MeterCode() override {
    ::munmap(memory_, kBytes);
    ::munmap(told_, kPageSize);
  }

  static char* map(std::size_t bytes, int flags) {
    return static_cast<char*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0));
  }

  // What a child copies of the test's memory, as it is seen from here.
  Copied of_child(const std::function<void()>& work) {
    PausedChild child(work);
    auto meter = Meter::begin(child.pid()).value();
    child.work();
    EXPECT_TRUE(meter.end());
    return meter.copied().value().within(memory_, kBytes);
  }

  // What a child tells of its own copies, of the test's memory.
  std::string told_by_child(const std::function<void()>& prepare,
                            const std::function<void()>& work) {
    PausedChild child([&] {
      prepare();
      auto meter = Meter::begin();
      if (meter) work();
      const std::string text = !meter          ? meter.error().message
                               : !meter->end() ? meter->copied().error().message
                                               : to_text(meter->copied()->within(memory_, kBytes));
      std::snprintf(told_, kPageSize, "%s", text.c_str());
    });
    child.work();
    return told_;
  }

  // The same, of a child of a process without privilege.
  void told_by_nobodys_child(const std::function<void()>& work) {
    const pid_t nobody = ::fork();
    if (nobody == 0) {
      if (::geteuid() == 0 && ::setuid(kNobody) != 0) ::_exit(1);
      if (::prctl(PR_SET_DUMPABLE, 1) != 0) ::_exit(1);
      told_by_child([] {}, work);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(nobody, &status, 0), nobody);
    ASSERT_EQ(status, 0);
  }

  char* memory_ = map(kBytes, MAP_PRIVATE);
  char* told_ = map(kPageSize, MAP_SHARED);
};

TEST_F(MeterCode, AChildsLineAndItsCallers) {
  const Copied copied = of_child([&] { write_pages(memory_, 3, 10); });
  const auto sites = copied.code_sites();
  ASSERT_EQ(sites.size(), 1U) << to_text(copied);
  EXPECT_EQ(sites[0].samples, 7U);
  EXPECT_THAT(sites[0].frames[0], frame_at(kWriteLine, "write_pages"));
  EXPECT_THAT(sites[0].stack, Contains(Field(&Frame::function, HasSubstr("PausedChild"))));
  EXPECT_THAT(to_text(copied),
              ContainsRegex("  28 KiB by .*write_pages.* at " + here(kWriteLine) + ", "));
  EXPECT_THAT(to_text(copied), Not(HasSubstr("no code")));
}

TEST_F(MeterCode, EachLineWithItsPages) {
  const Copied copied = of_child([&] {
    write_two_pages(memory_);
    write_pages(memory_, 8, 13);
    write_pages(memory_, 0, 13);  // nothing to be copied but pages 2 to 7
  });
  const auto sites = copied.code_sites();
  ASSERT_EQ(sites.size(), 3U) << to_text(copied);
  EXPECT_EQ(sites[0].samples, 11U);
  EXPECT_EQ(sites[0].frames[0].line, kWriteLine);
  EXPECT_EQ(sites[1].samples, 1U);
  EXPECT_EQ(sites[1].frames[0].line + sites[2].frames[0].line, 2 * kFirstOfTwoLine + 1);
}

TEST_F(MeterCode, OfAPartOnlyThatPartsLines) {
  const Copied copied = of_child([&] {
    write_two_pages(memory_);
    write_pages(memory_, 8, 13);
  });
  const auto sites = copied.within(memory_ + 8 * kPageSize, 2 * kPageSize).code_sites();
  ASSERT_EQ(sites.size(), 1U);
  EXPECT_EQ(sites[0].samples, 2U);
  EXPECT_EQ(sites[0].frames[0].line, kWriteLine);
}

TEST_F(MeterCode, OnesOwnLines) {
  EXPECT_THAT(told_by_child([] {}, [&] { write_pages(memory_, 0, 4); }),
              ContainsRegex("  16 KiB by .*write_pages.* at "));
}

TEST_F(MeterCode, NothingCopiedIsNoLine) {
  volatile char sum = 0;
  const Copied copied = of_child([&] {
    for (std::size_t i = 0; i < kBytes; ++i) sum = static_cast<char>(sum + memory_[i]);
  });
  EXPECT_EQ(copied.bytes(), 0U);
  EXPECT_THAT(copied.code_sites(), IsEmpty());
  EXPECT_THAT(to_text(copied), Not(HasSubstr("KiB by ")));
}

TEST_F(MeterCode, AnInlinedFunctionAndWhatItIsPartOf) {
  const Copied copied = of_child([&] { write_inlined(memory_); });
  const auto sites = copied.code_sites();
  ASSERT_EQ(sites.size(), 1U) << to_text(copied);
  ASSERT_GE(sites[0].frames.size(), 2U) << to_text(copied);
  EXPECT_THAT(sites[0].frames[0], frame_at(kInlinedLine, "inlined_write"));
  EXPECT_THAT(sites[0].frames[1], frame_at(kInlinerLine, "write_inlined"));
  EXPECT_THAT(to_text(copied), HasSubstr(here(kInlinedLine) + ", inlined in "));
}

// The place is who called it.
TEST_F(MeterCode, AFunctionOfTheLibraryByItsCaller) {
  const Copied copied = of_child([&] { fill(memory_, 6 * kPageSize); });
  EXPECT_EQ(copied.bytes(), 24_KiB);
  std::uint64_t pages = 0;
  for (const CodeSite& site : copied.code_sites()) {
    pages += site.samples;
    EXPECT_THAT(site.stack, Contains(frame_at(kFillLine, "fill"))) << to_text(copied);
  }
  EXPECT_EQ(pages, 6U);
}

TEST_F(MeterCode, ThreadsOldAndNew) {
  PausedChild child([] {});
  std::array<int, 2> go{};
  ASSERT_EQ(::pipe(go.data()), 0);
  std::thread old([&] {
    char byte = 0;
    (void)!::read(go[0], &byte, 1);
    write_pages(memory_, 0, 4);
  });
  auto meter = Meter::begin();
  ASSERT_TRUE(meter) << meter.error().message;
  (void)!::write(go[1], "", 1);
  old.join();
  std::thread([&] { write_two_pages(memory_ + 8 * kPageSize); }).join();
  ASSERT_TRUE(meter->end());
  const Copied copied = meter->copied().value().within(memory_, kBytes);
  EXPECT_EQ(copied.bytes(), 24_KiB);
  const auto sites = copied.code_sites();
  ASSERT_EQ(sites.size(), 3U) << to_text(copied);
  EXPECT_EQ(sites[0].samples, 4U);
  EXPECT_EQ(sites[0].frames[0].line, kWriteLine);
  EXPECT_EQ(sites[1].frames[0].line + sites[2].frames[0].line, 2 * kFirstOfTwoLine + 1);
  for (const int fd : go) ::close(fd);
}

TEST_F(MeterCode, WhatTheOtherCopiedIsNoLineOfThisProcess) {
  PausedChild child([&] { write_pages(memory_, 0, 5); });
  auto meter = Meter::begin();
  ASSERT_TRUE(meter) << meter.error().message;
  child.work();
  write_two_pages(memory_ + 8 * kPageSize);
  ASSERT_TRUE(meter->end());
  const Copied copied = meter->copied().value().within(memory_, kBytes);
  EXPECT_EQ(copied.bytes(), 28_KiB);
  EXPECT_EQ(copied.code_sites().size(), 2U) << to_text(copied);
  EXPECT_THAT(to_text(copied), HasSubstr("  20 KiB by no code of this process that was seen"));
}

TEST_F(MeterCode, TheKernelInASystemCall) {
  std::array<int, 2> bytes{};
  ASSERT_EQ(::pipe(bytes.data()), 0);
  (void)!::write(bytes[1], "12", 2);
  const Copied copied = of_child([&] { read_into(bytes[0], memory_); });
  EXPECT_EQ(copied.bytes(), 4_KiB);
  const auto sites = copied.code_sites();
  if (::geteuid() == 0) {
    ASSERT_EQ(sites.size(), 1U) << to_text(copied);
    EXPECT_EQ(sites[0].frames[0].function, "[kernel]");
    EXPECT_THAT(sites[0].stack, Contains(frame_at(kReadLine, "read_into"))) << to_text(copied);
  }
  told_by_nobodys_child([&] { read_into(bytes[0], memory_); });
  EXPECT_THAT(std::string(told_),
              ::testing::AnyOf(HasSubstr("  4 KiB by [kernel], called from "),
                               HasSubstr("  4 KiB by no code of this process that was seen: by who "
                                         "shared it, or by the kernel\n")));
  for (const int fd : bytes) ::close(fd);
}

TEST_F(MeterCode, ALibrarysData) {
  PausedChild child([] { test::write_to_library_data(); });
  auto meter = Meter::begin(child.pid());
  ASSERT_TRUE(meter) << meter.error().message;
  child.work();
  ASSERT_TRUE(meter->end());
  const Copied copied = meter->copied().value().within(test::library_data(), 2 * kPageSize);
  ASSERT_EQ(copied.bytes(), 4_KiB);
  EXPECT_THAT(copied.mappings[0].name, HasSubstr("meter_library"));
  const auto sites = copied.code_sites();
  ASSERT_EQ(sites.size(), 1U) << to_text(copied);
  EXPECT_EQ(sites[0].frames[0].line, test::kLibraryLine);
  EXPECT_THAT(sites[0].frames[0].file, ::testing::EndsWith("meter_library.cc"));
  EXPECT_THAT(sites[0].frames[0].module, HasSubstr("meter_library"));
}

// Of a private file that is read first, the last fault is the write.
TEST_F(MeterCode, AFilesPageThatWasReadBefore) {
  std::FILE* file = std::tmpfile();
  ASSERT_EQ(::ftruncate(::fileno(file), static_cast<off_t>(kBytes)), 0);
  ASSERT_NE(
      ::mmap(memory_, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, ::fileno(file), 0),
      MAP_FAILED);
  volatile char sum = 0;
  const Copied copied = of_child([&] {
    for (std::size_t i = 0; i < kBytes; i += kPageSize) sum = static_cast<char>(sum + memory_[i]);
    write_pages(memory_, 0, 20);
  });
  const auto sites = copied.code_sites();
  ASSERT_EQ(sites.size(), 1U) << to_text(copied);
  EXPECT_EQ(sites[0].samples, 20U);
  EXPECT_EQ(sites[0].frames[0].line, kWriteLine);
  std::fclose(file);
}

// A fork of a process with a live Meter has none of its events, and takes nothing from it.
TEST_F(MeterCode, AForkOfTheMeterIsNotSampledAndTakesNothing) {
  PausedChild sharer([] {});
  std::optional<Meter> meter = Meter::begin().value();
  const pid_t child = ::fork();
  if (child == 0) {
    std::ifstream maps("/proc/self/maps");
    const std::string mapped((std::istreambuf_iterator<char>(maps)), {});
    meter.reset();
    write_pages(memory_, 0, 10);
    ::_exit(mapped.find("perf_event") == std::string::npos ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  write_two_pages(memory_);
  ASSERT_TRUE(meter->end());
  const Copied copied = meter->copied().value().within(memory_, kBytes);
  EXPECT_EQ(copied.bytes(), 8_KiB);
  EXPECT_EQ(copied.code_sites().size(), 2U) << to_text(copied);
  EXPECT_THAT(to_text(copied), Not(HasSubstr("write_pages")));
}

TEST_F(MeterCode, GivesBackWhatItTook) {
  const auto taken = [] {
    std::ifstream maps("/proc/self/maps");
    const std::string mapped((std::istreambuf_iterator<char>(maps)), {});
    const std::filesystem::directory_iterator files("/proc/self/fd");
    return std::pair(std::distance(begin(files), end(files)), mapped.find("perf_event"));
  };
  const auto before = taken();
  {
    auto meter = Meter::begin().value();
    EXPECT_GT(taken().first, before.first);
    const Meter moved = std::move(meter);
  }
  EXPECT_EQ(taken(), before);
}

TEST_F(MeterCode, FaultsBeyondTheBufferAreCounted) {
  constexpr std::size_t kFresh = 512;
  char* fresh = map(kFresh * kPageSize, MAP_PRIVATE);
  ::madvise(fresh, kFresh * kPageSize, MADV_NOHUGEPAGE);
  const Copied copied = of_child([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<std::size_t>(::sched_getcpu()), &one);
    ::sched_setaffinity(0, sizeof one, &one);
    write_two_pages(memory_);
    for (int i = 0; i < 30; ++i) {
      write_pages(fresh, 0, kFresh);
      ::madvise(fresh, kFresh * kPageSize, MADV_DONTNEED);
    }
    write_pages(memory_, 8, 10);
  });
  EXPECT_EQ(copied.bytes(), 16_KiB);
  EXPECT_EQ(copied.code_sites().size(), 2U) << to_text(copied);
  EXPECT_THAT(copied.unknown, Contains(HasSubstr("there was no room for more")));
  ::munmap(fresh, kFresh * kPageSize);
}

TEST_F(MeterCode, WithoutPrivilege) {
  std::ifstream file("/proc/sys/kernel/perf_event_paranoid");
  int paranoid = 3;
  file >> paranoid;
  if (paranoid > 2) GTEST_SKIP() << "kernel.perf_event_paranoid is " << paranoid;
  told_by_nobodys_child([&] { write_pages(memory_, 0, 4); });
  // It may not be allowed to read this program's file.
  EXPECT_THAT(std::string(told_), ::testing::AnyOf(ContainsRegex("  16 KiB by .*write_pages.* at "),
                                                   HasSubstr("  16 KiB by meter_code_test+0x")));
}

void refuse_perf_events(int error) {
  constexpr auto kNumber = static_cast<std::uint32_t>(offsetof(seccomp_data, nr));
  std::array<sock_filter, 4> code{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_perf_event_open, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog program{code.size(), code.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    ::_exit(1);
  }
}

TEST_F(MeterCode, WhereItIsRefusedOneLineSaysSo) {
  const std::string text =
      told_by_child([] { refuse_perf_events(EPERM); }, [&] { write_pages(memory_, 0, 4); });
  EXPECT_THAT(text, HasSubstr("16 KiB copied by PID"));
  EXPECT_THAT(text, HasSubstr("not known: which lines of code copied: perf_event_open: Operation "
                              "not permitted; not by kernel.perf_event_paranoid, which is"));
  EXPECT_THAT(text, Not(HasSubstr("KiB by ")));
}

TEST_F(MeterCode, WhereThereAreNoPerfEvents) {
  EXPECT_THAT(told_by_child([] { refuse_perf_events(ENOSYS); }, [] {}),
              HasSubstr("perf_event_open: Function not implemented; this kernel, or container, has "
                        "no perf events"));
}

// As Debian's kernel is configured.
TEST_F(MeterCode, WhereTheSettingIsThreeThatIsSaid) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to show another setting than is";
  const std::string three = ::testing::TempDir() + "paranoid_" + std::to_string(::getpid());
  std::ofstream(three) << "3\n";
  const std::string text = told_by_child(
      [&] {
        if (::unshare(CLONE_NEWNS) != 0 ||
            ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            ::mount(three.c_str(), "/proc/sys/kernel/perf_event_paranoid", nullptr, MS_BIND,
                    nullptr) != 0) {
          ::_exit(1);
        }
        refuse_perf_events(EACCES);
      },
      [] {});
  std::filesystem::remove(three);
  EXPECT_THAT(text, HasSubstr("perf_event_open: Permission denied; kernel.perf_event_paranoid is "
                              "3: needs 2, or CAP_PERFMON"));
}

TEST_F(MeterCode, AFailedExpectationSaysWhichLine) {
  const Copied copied = of_child([&] { write_pages(memory_, 0, 4); });
  ::testing::StringMatchResultListener listener;
  EXPECT_FALSE(::testing::ExplainMatchResult(AtMost(4_KiB), copied, &listener));
  EXPECT_THAT(listener.str(), HasSubstr(here(kWriteLine)));
}

}  // namespace
}  // namespace cowshed::cow
