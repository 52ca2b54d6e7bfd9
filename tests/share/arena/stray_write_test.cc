#include <csetjmp>

#include <cowshed/base/standard_error.h>
#include <cowshed/share/stray_write.h>
#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

struct Answers {
  long answers[4096] = {};
};

// A frozen arena with a published Answers and something that is not published.
struct Frozen {
  Arena arena = make_arena();
  Answers* index = arena.make<Answers>().value();
  long* unpublished = arena.make<long>().value();

  explicit Frozen(FreezeMode mode = FreezeMode::strict) {
    (void)publish("my object", index).value();
    if (const auto done = arena.freeze(mode); !done) throw std::runtime_error(done.error().message);
  }
};

// For callbacks: writes the record to standard output, async-signal-safely, as to_string() is not.
void put_record(const StrayWrite& write, void* context) noexcept {
  const auto* text = static_cast<const char*>(context);
  (void)!::write(STDERR_FILENO, text, std::strlen(text));
  (void)!::write(STDERR_FILENO, write.object.data(), std::strlen(write.object.data()));
}

StrayWrite seen;

// Sanitizers have SIGSEGV handlers of their own, which end the process in their way.
class StrayWrites : public testing::Test {
 protected:
  void SetUp() override {
    if (test::kSanitized) GTEST_SKIP() << "this sanitizer handles SIGSEGV itself";
  }
};
using StrayWritesDeathTest = StrayWrites;

void begin_with_standard_error(int fd) {
  dup2(fd, STDERR_FILENO);
  internal::standard_error_at_start = internal::identity_of(fd);
}

// Runs `body` in a child that dies of SIGSEGV; what it wrote to standard error comes back.
std::string last_words(const std::function<void()>& body, int signal = SIGSEGV) {
  int ends[2];
  if (pipe(ends) != 0) throw std::runtime_error("pipe");
  const auto result = run_in_child([&]() -> std::string {
    begin_with_standard_error(ends[1]);
    body();
    return "survived";
  });
  close(ends[1]);
  char buffer[1024];
  const ssize_t count = read(ends[0], buffer, sizeof buffer);
  close(ends[0]);
  EXPECT_EQ(result.signal, signal);
  return result.said + std::string(buffer, static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
}

// Of a thawed arena what was frozen before is still immutable; what is open is not.
TEST_F(StrayWrites, KillsAfterTheCallback) {
  for (const bool thawed : {false, true}) {
    const auto write = [&] {
      Frozen frozen;
      char text[] = "hit ";
      set_stray_write_callback(&put_record, text);
      if (thawed && !frozen.arena.thaw()) return;
      if (thawed) *frozen.arena.make<long>().value() = 1;
      frozen.index->answers[100] = 1;
    };
    EXPECT_EQ(last_words(write), "hit my object") << thawed;
  }
}

TEST_F(StrayWrites, WithoutACallbackIsALine) {
  Frozen frozen;
  EXPECT_THAT(
      last_words([&] { frozen.index->answers[100] = 1; }),
      testing::MatchesRegex(
          "cowshed: process [0-9]+ wrote to frozen arena 'index' at 0x[0-9a-f]+ "
          "\\(object 'my object' \\+ 800\\); copy what is to be changed, or freeze leniently"
          "\\. Did a destructor write\\? [^\n]+\n"));
  const std::string lines = last_words(
      [&] { const auto threads = begin_threads(8, [&](int i) { frozen.index->answers[i] = 1; }); });
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 1) << lines;
}

TEST_F(StrayWrites, EndsTheProcessThatCannotWriteTheLine) {
  Frozen frozen;
  for (const bool full : {false, true}) {
    const auto result = run_in_child([&]() -> std::string {
      int ends[2];
      if (pipe2(ends, O_NONBLOCK) != 0) return "no pipe";
      while (full && write(ends[1], "x", 1) == 1) {
      }
      (void)fcntl(ends[1], F_SETFL, 0);
      begin_with_standard_error(ends[1]);
      if (!full) close(ends[0]);
      frozen.index->answers[100] = 1;
      return "survived";
    });
    EXPECT_EQ(result.signal, SIGSEGV) << (full ? "a full pipe" : "a closed pipe");
  }
}

// As a daemon's that closed its standard streams: a file of its own may have the descriptor.
TEST_F(StrayWrites, AreNoLineInAFileThatIsNotStandardErrorAnyMore) {
  Frozen frozen;
  int data[2];
  ASSERT_EQ(pipe2(data, O_NONBLOCK), 0);
  const auto write = [&] {
    dup2(data[1], STDERR_FILENO);
    frozen.index->answers[100] = 1;
  };
  EXPECT_EQ(last_words(write), "");
  char byte = 0;
  EXPECT_EQ(read(data[0], &byte, 1), -1) << "no byte";
  for (const int end : data) close(end);
}

// As a destructor does.
void free_and_write(Frozen& frozen) {
  frozen.arena.deallocate(frozen.unpublished, sizeof(long), alignof(long));
  frozen.index->answers[0] = 1;
}

TEST_F(StrayWrites, OfTheProcessThatFrozeIsADestructorsOnceNoChildIsLeft) {
  const auto destroy = [] {
    Frozen frozen;
    (void)run_in_child([] { return std::string(); });
    free_and_write(frozen);
    EXPECT_EQ(frozen.arena.refreeze().error().code, ErrorCode::arena_frozen);
  };
  EXPECT_EQ(last_words(destroy, 0), "survived");
  // A later child would have what was written.
  const auto fork_then = [] {
    Frozen frozen;
    free_and_write(frozen);
    (void)run_in_child([] { return std::string(); });
  };
  EXPECT_THAT(last_words(fork_then), StartsWith("cowshed: process "));
  const auto with_a_child = [] {
    Frozen frozen;
    const Child reader([](const test::Line& parent) { return parent.hear() ? 0 : 1; });
    free_and_write(frozen);
  };
  EXPECT_THAT(last_words(with_a_child), StartsWith("cowshed: process "));
  Frozen frozen;
  EXPECT_THAT(last_words([&] { free_and_write(frozen); }), StartsWith("cowshed: process "));
}

TEST_F(StrayWrites, ReadsOutsideAndOtherFaultsAreNotReported) {
  Frozen frozen;
  void* closed = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  auto* beyond = reinterpret_cast<volatile char*>(frozen.arena.base() + 60_MiB);
  EXPECT_EQ(last_words([&] { *static_cast<volatile char*>(closed) = 1; }), "");
  EXPECT_EQ(last_words([&] { (void)*beyond; }), "");
  EXPECT_NE(last_words([&] { *beyond = 1; }), "") << "reserved for the arena, though not in use";
  EXPECT_EQ(last_words([] {
              (void)kill(getpid(), SIGSEGV);
              for (;;) pause();
            }),
            "");
  munmap(closed, 4096);
}

sigjmp_buf back;

// The record itself, looked at after a jump out of the callback.
TEST_F(StrayWrites, TheRecordSaysWhereAndWhat) {
  Frozen frozen;
  const auto record = [&](volatile long* target) {
    set_stray_write_callback([](const StrayWrite& write, void*) noexcept {
      seen = write;
      siglongjmp(back, 1);
    });
    if (sigsetjmp(back, 1) == 0) *target = 1;
    set_stray_write_callback(nullptr);
    return seen;
  };
  const StrayWrite hit = record(&frozen.index->answers[514]);
  EXPECT_STREQ(hit.arena.data(), "index");
  EXPECT_STREQ(hit.object.data(), "my object");
  EXPECT_EQ(hit.object_offset, 514 * sizeof(long));
  EXPECT_EQ(hit.address, reinterpret_cast<std::uintptr_t>(&frozen.index->answers[514]));
  EXPECT_EQ(hit.arena_offset, hit.address - reinterpret_cast<std::uintptr_t>(frozen.arena.base()));
  EXPECT_NE(hit.instruction, 0U);
  EXPECT_THAT(to_string(hit), HasSubstr("wrote to frozen arena 'index' at 0x"));
  EXPECT_THAT(to_string(hit), HasSubstr(" (object 'my object' + 4112); copy what is to be"));
  EXPECT_TRUE(hit.inherited);
  const StrayWrite other = record(frozen.unpublished);
  EXPECT_STREQ(other.object.data(), "");
  EXPECT_THAT(to_string(other), HasSubstr(" (memory of 'my object', most likely); "));
  (void)publish("second", frozen.unpublished + 1).value();
  EXPECT_THAT(to_string(record(frozen.unpublished)), Not(HasSubstr("memory of")));
}

// What a child lacks, of an arena that was open at its fork or had been opened again.
TEST_F(StrayWrites, AUseOfWhatWasNotFrozenBeforeTheForkSaysSo) {
  const auto expect_line = [](const std::string& line) {
    EXPECT_THAT(line, testing::MatchesRegex(
                          "cowshed: process [0-9]+ used arena 'index' at 0x[0-9a-f]+, which was "
                          "not frozen when this process was forked; freeze\\(\\) it before the "
                          "fork\n"));
  };
  Arena open = make_arena();
  volatile long* number = open.make<long>(7).value();
  expect_line(last_words([&] { (void)*number; }));
  expect_line(last_words([&] { *number = 8; }));
  EXPECT_EQ(*number, 7);
  Frozen frozen;
  frozen.arena.thaw().value();
  volatile long* later = frozen.arena.make<long>(7).value();
  EXPECT_THAT(last_words([&] { (void)*later; }), HasSubstr("was not frozen when this process"));
  EXPECT_EQ(last_words([&] { (void)*frozen.unpublished; }, 0), "survived");
}

// A program of its own, since the handler is installed once per process.
TEST_F(StrayWritesDeathTest, PassesOnToTheHandlerThatWasThere) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        struct sigaction before = {};
        before.sa_flags = SA_SIGINFO;
        before.sa_sigaction = [](int signal, siginfo_t* info, void* context) {
          _exit(signal == SIGSEGV && info->si_addr != nullptr && context != nullptr ? 61 : 62);
        };
        sigaction(SIGSEGV, &before, nullptr);
        char text[] = "callback first";
        set_stray_write_callback(&put_record, text);
        Frozen frozen;
        frozen.index->answers[0] = 1;
      },
      testing::ExitedWithCode(61), "callback first");
  EXPECT_EXIT(
      {
        (void)std::signal(SIGSEGV, [](int) { _exit(63); });
        Frozen frozen;
        void* closed = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        *static_cast<volatile int*>(closed) = 1;
      },
      testing::ExitedWithCode(63), "");
  EXPECT_EXIT(  // which goes on: the line appears once
      {
        (void)std::signal(SIGSEGV, [](int) { siglongjmp(back, 1); });
        Frozen frozen;
        if (sigsetjmp(back, 1) == 0) frozen.index->answers[0] = 1;
        if (sigsetjmp(back, 1) == 0) frozen.index->answers[0] = 1;
        _exit(64);
      },
      testing::ExitedWithCode(64), testing::MatchesRegex("cowshed: process [^\n]+\n"));
}

}  // namespace
}  // namespace cowshed
