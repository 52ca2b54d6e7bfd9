#include "every_method.h"

namespace cowshed {
namespace {

using ForkServers = test::LeavesNothing;

WorkersOptions by(const ForkServer& server, WorkersOptions options = {}) {
  options.method = Start::forkserver;
  options.server = &server;
  return options;
}

int warmth = 0;  // of the server, inherited by its workers

void warm_up(int by) { warmth += by; }
long get_warmth() { return warmth; }
long parent() { return getppid(); }

TEST_F(ForkServers, WorkersHaveWhatTheWarmUpLeft) {
  const auto server = value_of(ForkServer::start<warm_up>({}, 17));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(end_of(start<get_warmth>(by(server))).value, 17);
  EXPECT_EQ(warmth, 0);
  EXPECT_EQ(end_of(start<parent>(by(server))).value, server.pid());
}

void end_after_byte(Open from) {
  char byte = 0;
  (void)!read(from.descriptor, &byte, 1);
}

TEST_F(ForkServers, ThatAreStoppedHoldUpNoDeadline) {
  Pipe pipe;
  const auto server = value_of(ForkServer::start({}));
  auto workers = value_of(start<end_after_byte>(by(server), pipe.from()));
  auto killed = value_of(start<stay>(by(server)));
  kill(server.pid(), SIGSTOP);
  pipe.write_end = FileDescriptor();  // the worker ends
  EXPECT_TRUE(internal::is_ready(workers.processes()[0].pidfd(), POLLIN, 60'000));
  EXPECT_THAT(workers.wait_for(1ms), Fails(ErrorCode::timed_out));
  EXPECT_THAT(workers.processes()[0].wait_for(1ms), Fails(ErrorCode::timed_out));
  const auto results = value_of(killed.stop(std::chrono::steady_clock::now()));
  EXPECT_THAT(results[0].error, EndsWith("nobody knows how: its forkserver is stopped"));
  kill(server.pid(), SIGCONT);
  EXPECT_TRUE(value_of(workers.wait())[0].ok());
}

struct Index {
  long answer = 42;
};

long warm_answer = 0;
void keep_answer(const Index& index) { warm_answer = index.answer; }
long answer_of(const Index& index) { return index.answer + warm_answer; }
long answer_by_name(const std::string& name) { return find<Index>(name).value()->answer; }

Ref<Index> make_index(Arena& arena, const char* name, long answer) {
  Index* index = value_of(arena.make<Index>());
  index->answer = answer;
  return value_of(publish(name, index));
}

TEST_F(ForkServers, HoldTheArenasAlsoOfLaterStarts) {
  Arena early = make_arena("early");
  const auto first = make_index(early, "first", 1);
  ASSERT_TRUE(early.freeze());
  const auto server = value_of(ForkServer::start<keep_answer>({}, first));
  EXPECT_EQ(end_of(start<answer_of>(by(server), first)).value, 2);
  Arena late = make_arena("late");
  const auto second = make_index(late, "second", 10);
  ASSERT_TRUE(late.freeze());
  EXPECT_EQ(end_of(start<answer_of>(by(server), second)).value, 11);
  EXPECT_EQ(end_of(start<answer_of>(by(server), first)).value, 2);
  EXPECT_EQ(end_of(start<answer_by_name>(by(server), "second")).value, 10);
}

struct Notes {
  long answer = 1;
  long hot = 0;
};

void take_notes(const Notes& notes) {
  const_cast<Notes&>(notes).hot = 42;
  (void)publish("hot", &notes.hot).value();
}
long hot_of(const Notes& notes) { return notes.hot + *find<long>("hot").value(); }
bool knows(const std::string& name) { return find<long>(name).has_value(); }

TEST_F(ForkServers, KeepWhatTheWarmUpLeftInAnArenaWhateverTheirOwnerChanges) {
  Arena arena = make_arena("notes");
  const Notes* notes = value_of(arena.make<Notes>());
  const auto ref = value_of(publish("notes", notes));
  const auto old = value_of(publish("old", &notes->answer));
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  const auto server = value_of(ForkServer::start<take_notes>({}, ref));
  {
    const Arena other = make_arena("other");
    EXPECT_EQ(end_of(start<hot_of>(by(server), ref)).value, 84);
  }
  EXPECT_EQ(end_of(start<knows>(by(server), "old")).value, true);
  ASSERT_TRUE(withdraw(old));
  (void)value_of(publish("new", &notes->answer));
  EXPECT_EQ(end_of(start<knows>(by(server), "old")).value, false);
  EXPECT_EQ(end_of(start<knows>(by(server), "new")).value, true);
  EXPECT_EQ(end_of(start<hot_of>(by(server), ref)).value, 84);
}

void crash(int how) {
  switch (how) {
    case 0: raise(SIGSEGV); break;
    case 1: _exit(3);
    case 2: syscall(SYS_close_range, 0U, ~0U, 0U); break;
    case 3: execl("/bin/false", "false", nullptr); break;
    case 4: kill(getppid(), SIGINT); break;
    default: throw 1;
  }
}

TEST_F(ForkServers, SurviveBadWorkers) {
  const auto server = value_of(ForkServer::start());
  for (int how = 0; how <= 5; ++how) {
    const auto exit = end_of(start<crash>(by(server), how));
    EXPECT_EQ(exit.ok(), how == 2 || how == 4) << exit.error;
  }
  EXPECT_EQ(end_of(start<parent>(by(server))).value, server.pid());
}

bool is_gone(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(stat, line);
  return line.empty() || line.find(") Z ") != std::string::npos;
}

bool goes(pid_t pid) {
  return eventually([pid] { return is_gone(pid); });
}

TEST_F(ForkServers, WhenKilledTheirWorkersGoToo) {
  const auto server = value_of(ForkServer::start());
  auto workers = value_of(start<stay>(by(server, {.count = 2})));
  kill(server.pid(), SIGKILL);
  for (const auto& exit : value_of(workers.wait())) {
    EXPECT_FALSE(exit.ok());
    EXPECT_THAT(exit.error, HasSubstr("its forkserver died of signal 9 (Killed)"));
  }
  EXPECT_THAT(start<stay>(by(server)), Fails(ErrorCode::forkserver_ended, "died of signal 9"));
}

// Starts a worker while the server is killed; its PID, 0 when that failed.
pid_t start_by_dying_server(std::chrono::microseconds delay) {
  const auto server = value_of(ForkServer::start());
  const std::jthread killer([&] {
    std::this_thread::sleep_for(delay);
    kill(server.pid(), SIGKILL);
  });
  auto worker = start<get_warmth>(by(server, {.die_with_parent = false}));
  if (!worker) {
    EXPECT_THAT(worker, Fails(ErrorCode::forkserver_ended));
    return 0;
  }
  return value_of(worker->wait())[0].pid;
}

TEST_F(ForkServers, KilledInTheMidstOfAStartLeaveNoUnknownWorker) {
  constexpr int kRounds = test::sized<int>(200, 20);
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);  // so that such a worker becomes a child
  std::mt19937 random(1);
  for (int round = 0; round < kRounds; ++round) {
    const pid_t started = start_by_dying_server(std::chrono::microseconds(random() % 300));
    if (started != 0) waitpid(started, nullptr, 0);
    ASSERT_EQ(waitpid(-1, nullptr, 0), -1) << "in round " << round << ", " << started;
  }
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

// The server may be gone before this begins.
long wait_for_orphanage(pid_t server) {
  while (getppid() == server) std::this_thread::sleep_for(1ms);
  return 5;
}

TEST_F(ForkServers, AValueIsNotLostWithThem) {
  const auto server = value_of(ForkServer::start());
  auto workers =
      value_of(start<wait_for_orphanage>(by(server, {.die_with_parent = false}), server.pid()));
  kill(server.pid(), SIGKILL);
  const auto result = value_of(workers.wait())[0];
  EXPECT_EQ(result.value, 5) << result.error;
}

void say(Open to) { (void)!write(to.descriptor, "x", 1); }

TEST_F(ForkServers, AStoppedOneIsWaitedForNotForEver) {
  const auto server = value_of(ForkServer::start());
  auto killed = value_of(start<stay>(by(server)));
  kill(server.pid(), SIGSTOP);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(server.pid()), &info, WSTOPPED);
  Pipe never_said;
  EXPECT_THAT(start<say>(by(server, {.count = 2, .start_timeout = 1ms}), never_said.to()),
              Fails(ErrorCode::timed_out, "within 1 ms (WorkersOptions::start_timeout)"));
  const std::jthread later([&] {
    std::this_thread::sleep_for(20ms);
    kill(server.pid(), SIGCONT);
  });
  EXPECT_EQ(end_of(start<parent>(by(server))).value, server.pid());
  EXPECT_FALSE(value_of(killed.stop(std::chrono::steady_clock::now()))[0].ok());
  never_said.write_end = FileDescriptor();
  EXPECT_FALSE(never_said.read_byte());
}

using Pids = std::array<std::atomic<pid_t>, 2>;

TEST_F(ForkServers, EndWithTheirOwnerHoweverItEnds) {
  for (const bool killed : {false, true}) {
    auto& pids = test::shared<Pids>();
    Child owner([&] {
      const auto server = ForkServer::start();
      // One that has the owner's socket too does not keep the server.
      const pid_t holder = fork();
      if (holder == 0) {
        sleep(60);
        _exit(0);
      }
      pids[0] = server ? server->pid() : 0;
      pids[1] = holder;
      while (killed) pause();
      _exit(0);
      return 0;
    });
    while (pids[1] == 0) std::this_thread::sleep_for(1ms);
    EXPECT_GT(pids[0], 0);
    if (killed) owner.signal(SIGKILL);
    owner.wait();
    EXPECT_TRUE(goes(pids[0]));
    kill(pids[1], SIGKILL);
  }
}

TEST_F(ForkServers, EndWithTheirWorkersWhenContinuedAfterTheirOwnersEnd) {
  auto& pids = test::shared<Pids>();
  Child owner([&] {
    const auto server = value_of(ForkServer::start());
    const auto workers = value_of(start<stay>(by(server)));
    pids[0] = server.pid();
    pids[1] = workers.processes()[0].pid();
    return pause();
  });
  while (pids[1] == 0 && owner.running()) std::this_thread::sleep_for(1ms);
  ASSERT_GT(pids[1], 0);
  kill(pids[0], SIGSTOP);
  owner.signal(SIGKILL);
  owner.wait();
  kill(pids[0], SIGCONT);
  EXPECT_TRUE(goes(pids[0]));
  EXPECT_TRUE(goes(pids[1]));
}

void leave_a_thread() {
  std::thread([] { stay(); }).detach();
}
void throw_up() { throw std::runtime_error("no corpus"); }
void leave() { _exit(4); }
void close_from(unsigned first) { (void)syscall(SYS_close_range, first, ~0U, 0U); }
void close_all_and_hang() {
  close_from(0);
  stay();
}

TEST_F(ForkServers, ABadWarmUpIsAnErrorOfStart) {
  EXPECT_THAT(ForkServer::start<leave_a_thread>({}),
              Fails(ErrorCode::invalid_argument, "after the warm-up: this process has"));
  EXPECT_THAT(ForkServer::start<throw_up>({.name = "index"}),
              Fails(ErrorCode::invalid_argument, "forkserver 'index': no corpus"));
  EXPECT_THAT(ForkServer::start<leave>({}), Fails(ErrorCode::forkserver_ended, "exited with 4"));
  EXPECT_THAT(ForkServer::start<stay>({.start_timeout = 50ms}),
              Fails(ErrorCode::forkserver_ended, "had not warmed up after 50 ms"));
  EXPECT_THAT(ForkServer::start<close_from>({}, 0U),
              Fails(ErrorCode::forkserver_ended, "exited with 74, as one does that cannot send"));
  EXPECT_THAT(ForkServer::start<close_all_and_hang>({.start_timeout = 3s}),
              Fails(ErrorCode::forkserver_ended, "its warm-up has closed the socket"));
}

TEST_F(ForkServers, AWarmUpMayCloseWhatTheServerHasBesideItsSocket) {
  const auto server = value_of(ForkServer::start<close_from>({}, 4U));
  EXPECT_EQ(end_of(start<parent>(by(server))).value, server.pid());
}

TEST_F(ForkServers, APatienceWithoutEndIsNone) {
  EXPECT_TRUE(ForkServer::start({.start_timeout = std::chrono::milliseconds::max()}));
}

TEST_F(ForkServers, AForkedProcessStartsItsOwn) {
  const auto server = value_of(ForkServer::start());
  Child child([&] {
    const auto of_parent = start<get_warmth>(by(server));
    auto own = start<get_warmth>({.method = Start::forkserver});
    const bool right = !of_parent && own && own->wait().value()[0].value == 0;
    std::exit(right ? 0 : 1);  // ends the process's own server
    return 1;
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(end_of(start<get_warmth>(by(server))).value, 0);
}

TEST_F(ForkServers, OneOfTheProcessServesWhoNamesNone) {
  Child process([] {  // it has it to its end
    const WorkersOptions options = {.method = Start::forkserver};
    const long first = end_of(start<parent>(options)).value.value_or(0);
    const bool same = end_of(start<parent>(options)).value == first;
    kill(static_cast<pid_t>(first), SIGKILL);
    waitpid(static_cast<pid_t>(first), nullptr, 0);
    const auto again = end_of(start<parent>(options)).value;
    return same && again && *again != first ? 0 : 1;
  });
  EXPECT_EQ(process.wait(), 0);
}

}  // namespace
}  // namespace cowshed
