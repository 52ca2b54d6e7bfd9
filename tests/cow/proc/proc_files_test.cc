#include <cowshed/cow/proc/process_pages.h>
#include <cowshed/tests/cow/children.h>
#include <cowshed/tests/cow/proc/fake_proc.h>
#include <cowshed/tests/support/failure.h>

namespace cowshed::cow {
namespace {

TEST_F(FakeProc, StatWithBlanksAndParenthesesInTheName) {
  write("7/stat",
        "7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 10 11 12 13 14 815 1\n");
  const auto stat = proc().stat(7).value();
  EXPECT_EQ(stat.comm, "a) b (c");
  EXPECT_EQ(stat.state, 'S');
  EXPECT_EQ(stat.ppid, 3);
  EXPECT_EQ(stat.minor_faults, 1U);
  EXPECT_EQ(stat.reaped_faults, 2U + 4U);
  EXPECT_EQ(stat.major_faults, 3U);
  EXPECT_EQ(stat.start_ticks, 4711U);
  EXPECT_EQ(stat.virtual_bytes, 10U);
  EXPECT_EQ(stat.resident_pages, 11U);
  EXPECT_EQ(stat.start_stack, 815U);
}

TEST_F(FakeProc, TheStackOfAnImageThatIsBeingLoadedIsNotKnown) {
  write("7/stat", "7 (a) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 10 11 12 0 0 815 1\n");
  EXPECT_EQ(proc().stat(7).value().start_stack, 0U);
}

// As pthread_exit() in main() leaves it.
TEST_F(FakeProc, AProcessWithoutItsFirstThreadIsReadByAnother) {
  const std::string rest = " 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 2 0 4711 ";
  write("7/stat", "7 (a) Z" + rest + "0 0 12 0 0 0 1\n");
  write("7/maps", "");
  write("7/task/7/stat", "7 (a) Z" + rest + "0 0 12 0 0 0 1\n");
  write("7/task/9/stat", "9 (a) S" + rest + "10 11 12 13 14 815 1\n");
  write("7/task/9/maps", "7f0000002000-7f0000003000 rw-p 00000000 00:00 0 \n");
  write("7/task/9/smaps_rollup", "0-1 ---p 0 00:00 0 [rollup]\nPss:  12 kB\nPss_Shmem:  5 kB\n");
  std::filesystem::create_symlink("/bin/true", root_ / "7/task/9/exe");
  const auto stat = proc().stat(7).value();
  EXPECT_TRUE(stat.has_memory());
  EXPECT_EQ(stat.virtual_bytes, 10U);
  EXPECT_EQ(stat.start_stack, 815U);
  EXPECT_THAT(proc().maps(7).value(), SizeIs(1));
  EXPECT_EQ(proc().pss(7)->bytes, 12U * 1024);
  EXPECT_EQ(proc().pss(7)->shared_memory_bytes, 5U * 1024);
}

TEST_F(FakeProc, MapsWithAnArenaABlankInThePathAndAnonymousMemory) {
  write("7/maps",
        "200000000000-200000200000 r--p 00000000 00:01 99  /memfd:cowshed:index (deleted)\n"
        "7f0000000000-7f0000001000 rw-s 00000000 08:01 5   /tmp/a b\n"
        "7f0000002000-7f0000003000 rw-p 00000000 00:00 0 \n"
        "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0   [stack]\n"
        "7ffd00000000-7ffd00200000 rw-p 00000000 00:10 9   /anon_hugepage (deleted)\n");
  const std::vector<Mapping> maps = proc().maps(7).value();
  ASSERT_EQ(maps.size(), 5U);
  EXPECT_EQ(arena_name(maps.at(0)), "index");
  Mapping foreign = maps.at(0);
  foreign.path = "/memfd:cowshed:" + std::string(200, 'x') + " (deleted)";
  EXPECT_EQ(arena_name(foreign), std::string(63, 'x')) << "as the kernel's part names it";
  EXPECT_TRUE(maps.at(0).is_private);
  EXPECT_FALSE(maps.at(0).writable);
  EXPECT_EQ(maps.at(0).bytes(), 0x200000U);
  EXPECT_EQ(maps.at(1).path, "/tmp/a b");
  EXPECT_FALSE(maps.at(1).is_private);
  EXPECT_TRUE(maps.at(1).has_file());
  EXPECT_EQ(arena_name(maps.at(1)), "");
  EXPECT_EQ(maps.at(2).path, "");
  EXPECT_FALSE(maps.at(2).has_file());
  EXPECT_EQ(maps.at(3).path, "[stack]");
  EXPECT_FALSE(maps.at(4).has_file());
}

TEST_F(FakeProc, WhatAForkDoesNotGiveToTheChildIsNotAmongTheInheritedMaps) {
  write("7/smaps",
        "7f0000000000-7f0000001000 rw-p 00000000 00:00 0\nSize: 4 kB\nVmFlags: rd wr mr dc ac\n"
        "7f0000002000-7f0000003000 rw-p 00000000 00:00 0\nSize: 4 kB\nVmFlags: rd wr mr ac sd\n"
        "7f0000004000-7f0000005000 rw-p 00000000 00:00 0\nSize: 4 kB\nVmFlags: rd wr wf ac\n");
  const std::vector<Mapping> maps = proc().inherited_maps(7).value();
  ASSERT_EQ(maps.size(), 1U);
  EXPECT_EQ(maps.at(0).begin, 0x7f0000002000U);
}

TEST_F(FakeProc, ChildrenOfAllThreads) {
  write("7/task/7/children", "8 9 ");
  write("7/task/10/children", "11 ");
  EXPECT_THAT(proc().children(7).value(), UnorderedElementsAre(8, 9, 11));
}

TEST_F(FakeProc, NumbersOfTheStatus) {
  write("7/status", "Name:\tTgid: 9\nTgid:\t7\nVmSwap:\t      12 kB\n");
  EXPECT_EQ(proc().status_number(7, "Tgid"), 7U);
  EXPECT_EQ(proc().status_number(7, "VmSwap"), 12U);
  EXPECT_EQ(proc().status_number(7, "VmRSS"), 0U);
  EXPECT_EQ(proc().status_number(8, "Tgid"), 0U);
}

TEST_F(FakeProc, ForksOfTheMachine) {
  EXPECT_FALSE(proc().forks());
  write("stat", "cpu  1 2\nctxt 7\nprocesses 4711\nprocs_running 2\n");
  EXPECT_EQ(proc().forks().value(), 4711U);
  write("stat", "cpu  1 2\n");
  EXPECT_FALSE(proc().forks());
}

TEST_F(FakeProc, GarbageIsAnErrorAndNotACrash) {
  for (const char* garbage : {"", "\n", ")(", "7", "7 (x", "7 (x)", "7 (x) ", "\xff\xfe\0x"}) {
    write("7/stat", garbage);
    const auto stat = proc().stat(7);
    if (stat) EXPECT_EQ(stat->start_ticks, 0U) << garbage;
  }
  for (const char* garbage : {"x", "-", "1-", "-1 r", "zz-zz rwxp", "1-2 rw", "\n\n"}) {
    write("7/maps", garbage);
    EXPECT_TRUE(proc().maps(7)) << garbage;
  }
}

TEST_F(FakeProc, NoSuchProcess) {
  const Error error = failure_of(proc().stat(8));
  EXPECT_EQ(error.code, ErrorCode::no_such_process);
  EXPECT_EQ(error.message, "PID 8: no such process");
}

TEST(ProcFiles, ReadsTheRealOne) {
  const ProcFiles proc;
  EXPECT_EQ(proc.stat(::getpid()).value().ppid, ::getppid());
  EXPECT_GT(proc.stat(::getpid()).value().start_stack, 0U);
  const auto here = reinterpret_cast<std::uintptr_t>(&proc);
  EXPECT_TRUE(std::ranges::any_of(proc.maps(::getpid()).value(), [&](const Mapping& mapping) {
    return mapping.begin <= here && here < mapping.end && mapping.writable;
  }));
}

TEST_F(FakeProc, WhyAProcessIsNotReadable) {
  const std::string running = "(a) S 3 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 4711 10 11 12 13 14 815";
  const std::string kernel = "(a) S 3 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 4711 0 0 12 0 0 0";
  write("7/stat", "7 " + running);
  write("8/stat", "8 " + running);
  write("9/stat", "9 " + kernel);
  for (const char* file : {"7/pagemap", "8/pagemap"}) write(file, "");
  const auto why = [&](pid_t pid) {
    const auto stat = stat_of_readable(proc(), pid);
    return stat ? std::string("is") : stat.error().message;
  };
  EXPECT_EQ(why(7), "is");
  EXPECT_EQ(why(9), "PID 9: is a kernel thread, without memory of its own");
  std::filesystem::permissions(root_, std::filesystem::perms(0755));
  std::filesystem::permissions(root_ / "8/pagemap", std::filesystem::perms::none);
  EXPECT_THAT(test::as_nobody([&] { return why(8); }), HasSubstr("PID 8: not permitted to read"));
}

TEST(ProcessError, DoesNotSendRootToRoot) {
  if (::geteuid() != 0) GTEST_SKIP() << "takes root";
  const Error error = process_error(1, "/proc/1/maps", EACCES).value();
  EXPECT_EQ(error.code, ErrorCode::permission_denied);
  EXPECT_THAT(error.message, HasSubstr("CAP_SYS_PTRACE"));
  EXPECT_THAT(error.message, Not(HasSubstr("run as")));
}

TEST_F(FakeProc, ATitleIsTheRoleThatAProgramGivesItself) {
  const std::vector<std::pair<std::string, std::string>> titles = {
      {"postgres: checkpointer ", "postgres: checkpointer"},
      {"postgres: 15/main: app db [local] idle", "postgres: app db"},
      {"puma: cluster worker 3: 4711 [shop]", "puma: cluster worker"},
      {"solid-queue-worker(1.1.3): waiting for jobs in *", "solid-queue-worker"},
      {"nginx: master process /usr/sbin/nginx", "nginx: master process"},
      {"/opt/chrome/chrome --type=renderer --lang=en", "chrome: renderer"},
      {std::string("electron\0--type=gpu-process\0", 28), "electron: gpu-process"},
      {std::string("python3\0-c\0import: os\0", 22), ""},
      {"puma 6.4.2 (tcp://0.0.0.0:9292) [shop]", ""},
      {"a: 1", ""},
      {"", ""}};
  for (const auto& [cmdline, title] : titles) EXPECT_EQ(title_of(cmdline), title) << cmdline;
}

TEST(SystemCall, OnlyAnotherThreadWakesFromAFutexOfTheProcessWithoutATimeout) {
  const auto waits = [](long call, const std::string& arguments) {
    return waits_for_own_thread(std::to_string(call) + arguments + " 0x7ffe00 0x7f12");
  };
  EXPECT_TRUE(waits(SYS_futex, " 0x7ffe10 0x189 0x0 0x0 0x0 0xffffffff"));
  EXPECT_TRUE(waits(SYS_futex, " 0x7ffe10 0x80 0x2 0x0 0x0 0x0"));
  EXPECT_FALSE(waits(SYS_futex, " 0x7ffe10 0x189 0x0 0x7ffe50 0x0 0xffffffff")) << "has a timeout";
  EXPECT_FALSE(waits(SYS_futex, " 0x7ffe10 0x109 0x0 0x0 0x0 0xffffffff"))
      << "may be another process's";
  EXPECT_FALSE(waits(SYS_read, " 0x3 0x80 0x2 0x0 0x0 0x0"));
  EXPECT_FALSE(waits_for_own_thread("")) << "runs";
}

}  // namespace
}  // namespace cowshed::cow
