#include <cowshed/share/wire/message.h>
#include <cowshed/tests/share/share.h>

// What is special about workers that are forked and run a closure; launch_ends_test has the rest.
namespace cowshed {
namespace {

// Starts, waits, and returns what became of all.
template <class Work>
std::vector<WorkerExit> run(int count, const Work& work) {
  return value_of(value_of(start({.count = count}, work)).wait());
}

TEST(Workers, AreNamedByTheirRank) {
  const auto exits = run(3, [](const Worker& self) { return 42 + self.rank; });
  ASSERT_EQ(exits.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(exits[i].error, "worker " + std::to_string(i) + " (pid " +
                                  std::to_string(exits[i].pid) + ") exited with " +
                                  std::to_string(42 + i));
  }
  EXPECT_THAT(start({.count = 0}, [] {}), Fails(ErrorCode::invalid_argument));
}

TEST(Workers, AreNamedInOneLine) {
  auto workers = value_of(start({.name = "w\nx"}, [] { return 3; }));
  EXPECT_THAT(value_of(workers.wait())[0].error, StartsWith("w x 0 (pid "));
  EXPECT_THAT(start({.count = 0, .name = "w\nx"}, [] {}),
              Fails(ErrorCode::invalid_argument, StartsWith("workers 'w x': ")));
}

// As one that refuses to be a worker.
TEST(Workers, WhatOneSaidIsReceivedAlsoIfItReadNothing) {
  auto sockets = value_of(launch::make_socket_pair());
  ASSERT_TRUE(launch::send_message(sockets.first.get(), launch::MessageKind::serve));
  launch::send_text(sockets.second.get(), launch::MessageKind::failure, "because");
  sockets.second = FileDescriptor();
  const auto message = value_of(launch::receive_message(sockets.first.get()));
  ASSERT_TRUE(message);
  EXPECT_EQ(message->content.inline_bytes(), "because");
  EXPECT_FALSE(value_of(launch::receive_message(sockets.first.get())));
}

TEST(Workers, WhatAWorkerForksDoesNotReportAsTheWorker) {
  Arena arena = make_arena();
  int* answer = arena.make<int>(42).value();
  ASSERT_TRUE(arena.freeze());
  const auto wrote = run(1, [&] {
    (void)Child([&] { return *answer = 1; }).wait();
    return 7;
  })[0];
  EXPECT_THAT(wrote.error, EndsWith("exited with 7"));
  const auto threw = run(1, [&] {
    const pid_t grandchild = fork();
    if (grandchild == 0) throw std::runtime_error("from the grandchild");
    waitpid(grandchild, nullptr, 0);
    return 0;
  })[0];
  EXPECT_EQ(threw.error, "");
}

TEST(Workers, StartSaysThatTheirExitsWouldBeLost) {
  struct sigaction before = {};
  sigaction(SIGCHLD, nullptr, &before);
  (void)std::signal(SIGCHLD, SIG_IGN);
  const auto workers = start({.count = 1}, [] {});
  sigaction(SIGCHLD, &before, nullptr);
  EXPECT_THAT(workers, Fails(ErrorCode::invalid_argument, "SIGCHLD is ignored"));
}

// Text that is still in a buffer at the fork comes out once, the workers' own too.
TEST(Workers, NothingIsPrintedTwice) {
  const auto child = run_in_child([] {
    char text[256] = {};
    int ends[2] = {};
    if (pipe(ends) != 0 || dup2(ends[1], STDOUT_FILENO) < 0) return std::string("no pipe");
    (void)std::setvbuf(stdout, nullptr, _IOFBF, 65536);
    std::cout << "before ";
    (void)std::fputs("also ", stdout);
    (void)run(2, [] { std::cout << "worker "; });
    std::cout << "after" << std::flush;
    return std::string(text, static_cast<std::size_t>(read(ends[0], text, sizeof text)));
  });
  EXPECT_EQ(child.said, "before also worker worker after");
}

}  // namespace
}  // namespace cowshed
