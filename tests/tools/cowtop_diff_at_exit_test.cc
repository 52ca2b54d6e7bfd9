#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <sched.h>
#include <string>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/probes/support.h>
#include <cowshed/tests/support/subprocess.h>

// The byte diff at each process's exit: exact figures, and that no program notices.
namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::Subprocess;
using ::testing::HasSubstr;
using Json = nlohmann::json;

// So that two runs of a program copy the same pages.
void at_fixed_addresses() { ::personality(ADDR_NO_RANDOMIZE); }

// What cowtop says of a run of exit_subject.
Json report(const std::string& mode, int pages, const std::string& option = "--diff-at-exit",
            const std::function<void()>& in_child = at_fixed_addresses) {
  std::vector<std::string> arguments = {COWTOP, "--json"};
  if (!option.empty()) arguments.push_back(option);
  arguments.insert(arguments.end(), {"-o", "/dev/stderr", "--", EXIT_SUBJECT, mode});
  arguments.push_back(std::to_string(pages));
  const Finished finished = test::run(arguments, in_child);
  EXPECT_EQ(finished.exit_status(), 0) << mode << ": " << finished.err;
  const auto begin = finished.err.find('{');
  return begin == std::string::npos ? Json() : Json::parse(finished.err.substr(begin));
}

double pages(const Json& process, const char* name) {
  EXPECT_EQ(process.at("diff").at("taken"), "exit") << process;
  return process.at("diff").at(name).get<double>();
}

// Compared or not.
double found_pages(const Json& process) {
  return pages(process, "compared_pages") + pages(process, "not_compared_pages");
}

class CowtopDiffAtExit : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto supported = probe_support(); !supported) {
      GTEST_SKIP() << supported.error().message;
    }
  }
  static constexpr int kPages = 500;
  static constexpr double kPageBytes = 4096;
};

// What a child writes beside its work, some 7 pages of its stack and its libraries, are its copies
// or its parent's, whoever is first: the probes know which.  One they know alone, to which the
// kernel writes the new child's thread ID: it may be copied before anybody can look.
void expect_all_found(const Json& child) {
  const double copied = child.at("copied_pages");
  EXPECT_LE(found_pages(child), copied) << child;
  EXPECT_GE(found_pages(child), copied - 1) << child;
}

// No interval would have seen them.
TEST_F(CowtopDiffAtExit, AllThatAChildChangedAtOnceBeforeItsEnd) {
  const Json run = report("changes", kPages);
  const Json& child = run.at("processes").at(1);
  expect_all_found(child);
  const double besides = pages(child, "compared_pages") - kPages;
  EXPECT_GE(besides, 0);
  EXPECT_LE(pages(child, "unchanged_pages"), besides);
  EXPECT_GE(pages(child, "changed_bytes"), kPages);
  EXPECT_LE(pages(child, "changed_bytes"), kPages + besides * kPageBytes);
}

TEST_F(CowtopDiffAtExit, CountedUpAndDownAgainIsCopiedAndUnchanged) {
  const Json run = report("up_and_down", kPages);
  const Json& child = run.at("processes").at(1);
  expect_all_found(child);
  const double besides = pages(child, "compared_pages") - kPages;
  EXPECT_GE(besides, 0);
  EXPECT_GE(pages(child, "unchanged_pages"), kPages);
  EXPECT_LE(pages(child, "changed_bytes"), besides * kPageBytes);
}

TEST_F(CowtopDiffAtExit, TheParentsOwnCopiesOnce) {
  const Json run = report("parent_first", kPages);
  const Json& parent = run.at("processes").at(0);
  const double compared = pages(parent, "compared_pages");
  EXPECT_GE(compared, kPages);
  // Its relocations, before any fork, among them; and the page of each child's thread ID.
  EXPECT_LE(compared, parent.at("copied_pages").get<double>() + 2);
  EXPECT_GE(pages(parent, "changed_bytes"), kPages);
  EXPECT_LE(pages(parent, "changed_bytes"), kPages + (compared - kPages) * kPageBytes);
  for (const std::size_t i : {1U, 2U}) {
    expect_all_found(run.at("processes").at(i));
    EXPECT_LT(found_pages(run.at("processes").at(i)), kPages) << "none of what the parent wrote";
  }
}

TEST_F(CowtopDiffAtExit, AsManyPagesAsTheProbesCounted) {
  for (const char* mode : {"changes", "up_and_down", "leader_exits_first", "group_exit", "killed",
                           "crashed", "seccomp", "job_control"}) {
    SCOPED_TRACE(mode);
    const Json run = report(mode, kPages);
    const Json& child = run.at("processes").at(1);
    expect_all_found(child);
    EXPECT_GE(found_pages(child), kPages);
    EXPECT_GT(child.at("diff").at("cost_ns"), 0);
  }
}

TEST_F(CowtopDiffAtExit, OfProcessesThatHadOnePidOneAfterTheOther) {
  const Json run = report("reused_pid", kPages);
  const auto& processes = run.at("processes");
  ASSERT_EQ(processes.size(), 21);
  for (std::size_t child = 1; child < processes.size(); ++child) {
    EXPECT_EQ(processes.at(child).at("pid"), processes.at(1).at("pid"));
    expect_all_found(processes.at(child));
  }
}

// On one CPU the child has at times come to its end before its parent, still in fork(), tells of
// it.
TEST_F(CowtopDiffAtExit, OfAChildThatEndsBeforeItsForkIsTold) {
  const auto on_one_cpu = [] {
    at_fixed_addresses();
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    ::sched_setaffinity(0, sizeof first, &first);
  };
  for (int i = 0; i < 10; ++i) {
    const Json run = report("parent_exits_first", kPages, "--diff-at-exit", on_one_cpu);
    const Json& child = run.at("processes").at(1);
    // What it copies before and after its own fork counts once, its child's thread ID's page more.
    EXPECT_GE(found_pages(child), kPages);
    EXPECT_LE(found_pages(child), child.at("copied_pages").get<double>() + 1);
  }
}

// A run of the subject fails where a wait, a signal or a stop is not what it is untraced.
TEST_F(CowtopDiffAtExit, NoProgramNotices) {
  for (const char* mode : {"changes", "parent_first", "parent_exits_first", "leader_exits_first",
                           "leader_exits_unseen", "group_exit", "killed", "crashed", "job_control",
                           "vfork_and_exec", "exec_in_thread", "seccomp"}) {
    EXPECT_EQ(test::run({EXIT_SUBJECT, mode}).exit_status(), 0) << mode;
    const Json exits = report(mode, 100).at("exit_diffs");
    EXPECT_EQ(exits.at("missed"), 0) << mode;
    EXPECT_EQ(exits.at("refused"), 0) << mode;
    EXPECT_GE(exits.at("compared"), 2) << mode;
    EXPECT_GT(exits.at("held_ns"), 0) << mode;
  }
}

TEST_F(CowtopDiffAtExit, TwoHundredShortLivedChildren) {
  const Json run = report("many", 50);
  ASSERT_EQ(run.at("processes").size(), 201U);
  EXPECT_EQ(run.at("exit_diffs").at("compared"), 201);
  EXPECT_EQ(run.at("exit_diffs").at("missed"), 0);
  for (const Json& process : run.at("processes")) {
    if (process.at("role") == "root") continue;
    ASSERT_FALSE(process.at("diff").is_null()) << process;
    EXPECT_GE(process.at("diff").at("changed_bytes"), 50);
    EXPECT_GE(process.at("diff").at("compared_pages"), 50);
  }
}

TEST_F(CowtopDiffAtExit, CopiesNothing) {
  // Copied or reused: the same whoever is first to write, but for a page that the kernel writes in
  // fork() where it switches to another process.
  constexpr double kForks = 2;
  const auto written = [](const Json& process) {
    return process.at("copied_pages").get<double>() + process.at("reused_pages").get<double>();
  };
  const Json without = report("in_turn", kPages, "");
  for (const char* option : {"", "--diff", "--diff-at-exit"}) {
    SCOPED_TRACE(option);
    const Json run = report("in_turn", kPages, option);
    const Json& processes = run.at("processes");
    ASSERT_EQ(processes.size(), 3U);
    for (const std::size_t i : {0U, 1U, 2U}) {
      EXPECT_NEAR(written(processes.at(i)), written(without.at("processes").at(i)), kForks);
    }
    // Each of the children's pages still had somebody who shared it, whatever had been read.
    for (const std::size_t i : {1U, 2U}) EXPECT_GE(processes.at(i).at("copied_pages"), kPages);
  }
}

TEST_F(CowtopDiffAtExit, ADebuggersRequestIsRefused) {
  EXPECT_EQ(test::run({EXIT_SUBJECT, "traceme"}).out, "allowed\n");
  const Finished finished = test::run({COWTOP, "--diff-at-exit", "--", EXIT_SUBJECT, "traceme"});
  EXPECT_EQ(finished.exit_status(), 0);
  EXPECT_THAT(finished.out, HasSubstr("refused\n"));
}

TEST_F(CowtopDiffAtExit, KeepsTheExitStatus) {
  for (const auto& [script, status] : std::vector<std::pair<std::string, int>>{
           {"exit 3", 3},
           {"kill -TERM $$", 128 + SIGTERM},
           {"kill -KILL $$", 128 + SIGKILL},
           {"(sleep 0.1; kill -CONT $$) & kill -STOP $$; wait; exit 4", 4}}) {
    EXPECT_EQ(test::run({COWTOP, "--diff-at-exit", "--", "sh", "-c", script}).exit_status(), status)
        << script;
  }
  EXPECT_EQ(test::run({COWTOP, "--diff-at-exit", "--", "/no/such"}).exit_status(), 127);
}

// Reference counts of what was only read go up and down again.
TEST_F(CowtopDiffAtExit, PythonsCopiesAreUnchanged) {
  const Finished finished =
      test::run({COWTOP, "--json", "--diff-at-exit", "--", "/usr/bin/python3", "-c",
                 "import os\n"
                 "words = [str(i) * 3 for i in range(100000)]\n"
                 "pid = os.fork()\n"
                 "if pid == 0: os._exit(sum(len(word) for word in words) % 7)\n"
                 "os.waitpid(pid, 0)\n"});
  ASSERT_EQ(finished.exit_status(), 0) << finished.err;
  const Json child = Json::parse(finished.out).at("processes").at(1);
  const Json& diff = child.at("diff");
  EXPECT_GT(diff.at("compared_pages"), 1000);
  EXPECT_GT(diff.at("unchanged_pages").get<double>(), diff.at("compared_pages").get<double>() * .9);
  EXPECT_LT(diff.at("changed_ratio"), 0.01);
}

// A subject with one child, both of which wait for the other end of a pipe to be closed.
class WaitingSubject {
 public:
  WaitingSubject() {
    EXPECT_EQ(::pipe2(in_.data(), O_CLOEXEC), 0);
    subject_.emplace(std::vector<std::string>{EXIT_SUBJECT, "waits", "100"},
                     [this] { ::dup2(in_[0], STDIN_FILENO); });
    ::close(in_[0]);
    child_ = std::stoi(subject_->read_until("\n").out);
  }
  WaitingSubject(const WaitingSubject&) = delete;
  WaitingSubject& operator=(const WaitingSubject&) = delete;
  ~WaitingSubject() { go_on(); }

  pid_t pid() const { return subject_->pid(); }
  pid_t child() const { return child_; }
  void go_on() {
    if (in_[1] >= 0) ::close(std::exchange(in_[1], -1));
  }
  Finished finish() { return subject_->finish(); }

 private:
  std::array<int, 2> in_{-1, -1};
  std::optional<Subprocess> subject_;
  pid_t child_ = 0;
};

bool is_in_state(pid_t pid, char state) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const auto name_end = text.rfind(") ");
  return name_end != std::string::npos && text[name_end + 2] == state;
}

bool comes_to_state(pid_t pid, char state) {
  for (int i = 0; i < 1000; ++i) {
    if (is_in_state(pid, state)) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

bool comes_to_be_traced(pid_t pid, pid_t tracer) {
  for (int i = 0; i < 1000; ++i) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/status");
    for (std::string line; std::getline(file, line);) {
      if (!line.starts_with("TracerPid:")) continue;
      // The tracer is a thread of cowtop's.
      const std::string task = line.substr(line.find_first_of("123456789", 10) != std::string::npos
                                               ? line.find_first_of("123456789", 10)
                                               : line.size());
      if (!task.empty() &&
          ::access(("/proc/" + std::to_string(tracer) + "/task/" + task).c_str(), F_OK) == 0) {
        return true;
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

TEST_F(CowtopDiffAtExit, OfAProcessTreeThatRunsAlready) {
  WaitingSubject subject;
  Subprocess cowtop({COWTOP, "--json", "--diff-at-exit", "-p", std::to_string(subject.pid())});
  ASSERT_THAT(cowtop.read_until("Ctrl-C").err, HasSubstr("attached to 2 processes"));
  ASSERT_TRUE(comes_to_be_traced(subject.child(), cowtop.pid()));
  subject.go_on();
  const Finished finished = cowtop.finish();
  EXPECT_EQ(subject.finish().exit_status(), 0);
  ASSERT_EQ(finished.exit_status(), 0) << finished.err;
  const Json run = Json::parse(finished.out);
  const Json& diff = run.at("processes").at(1).at("diff");
  EXPECT_EQ(diff.at("taken"), "exit");
  EXPECT_GE(diff.at("compared_pages"), 100);
  EXPECT_LE(diff.at("compared_pages"), 150);
  EXPECT_EQ(run.at("exit_diffs").at("compared"), 2);
}

// Nobody can trace it, and it has no memory.
TEST_F(CowtopDiffAtExit, AZombieChildIsLeftOut) {
  Subprocess parent({"sh", "-c", "sh -c 'echo $$; kill -KILL $$' & exec sleep 600"});
  const pid_t child = std::stoi(parent.read_until("\n").out);
  ASSERT_TRUE(comes_to_state(child, 'Z'));
  Subprocess cowtop({COWTOP, "--json", "--diff-at-exit", "-p", std::to_string(parent.pid())});
  EXPECT_THAT(cowtop.read_until("Ctrl-C").err, HasSubstr("attached to 1 process by"));
  ::kill(cowtop.pid(), SIGINT);
  const Finished finished = cowtop.finish();
  EXPECT_EQ(finished.exit_status(), 0);
  EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
  const Json run = Json::parse(finished.out);
  EXPECT_EQ(run.at("processes").size(), 1U);
  EXPECT_EQ(run.at("exit_diffs").at("refused"), 0);
  for (const char* backend : {"tracepoint", "pagemap"}) {
    EXPECT_EQ(test::run({COWTOP, "--backend", backend, "-p", std::to_string(child)}).err,
              "cowtop: PID " + std::to_string(child) + ": has exited (a zombie)\n");
  }
}

TEST_F(CowtopDiffAtExit, LeavesThoseThatRunOnToRunOn) {
  WaitingSubject subject;
  Subprocess cowtop({COWTOP, "--json", "--diff-at-exit", "-p", std::to_string(subject.pid())});
  ASSERT_TRUE(comes_to_be_traced(subject.child(), cowtop.pid()));
  ::kill(cowtop.pid(), SIGINT);
  const Finished finished = cowtop.finish();
  ASSERT_EQ(finished.exit_status(), 0) << finished.err;
  EXPECT_EQ(Json::parse(finished.out).at("processes").at(1).at("diff").at("taken"), "interval");
  subject.go_on();
  EXPECT_EQ(subject.finish().exit_status(), 0);
}

// Killed while a process is stopped for it at its exit.
TEST_F(CowtopDiffAtExit, KilledLeavesNobodyStopped) {
  WaitingSubject subject;
  Subprocess cowtop({COWTOP, "--diff-at-exit", "-p", std::to_string(subject.pid())});
  ASSERT_TRUE(comes_to_be_traced(subject.child(), cowtop.pid()));
  ::kill(cowtop.pid(), SIGSTOP);
  ASSERT_TRUE(comes_to_state(cowtop.pid(), 'T'));
  subject.go_on();
  ASSERT_TRUE(comes_to_state(subject.child(), 't'));
  ::kill(cowtop.pid(), SIGKILL);
  EXPECT_EQ(subject.finish().exit_status(), 0);
}

TEST_F(CowtopDiffAtExit, OfWhatSomebodyElseTracesAtIntervals) {
  WaitingSubject subject;
  ASSERT_EQ(::ptrace(PTRACE_SEIZE, subject.child(), nullptr, nullptr), 0);
  Subprocess cowtop({COWTOP, "--json", "--diff-at-exit", "-p", std::to_string(subject.pid())});
  const std::string refusal =
      "PID " + std::to_string(subject.child()) + ": is traced by PID " +
      std::to_string(::getpid()) +
      " (cowtop_test) already; it is compared at intervals, not at its exit";
  EXPECT_THAT(cowtop.read_until("intervals").err,
              HasSubstr(refusal.substr(0, refusal.find("inter"))));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  ::kill(cowtop.pid(), SIGINT);
  const Finished finished = cowtop.finish();
  EXPECT_THAT(finished.err, HasSubstr("cowtop: " + refusal + "\n"));
  const Json run = Json::parse(finished.out);
  EXPECT_EQ(run.at("exit_diffs").at("refused"), 1);
  EXPECT_EQ(run.at("processes").at(1).at("diff").at("taken"), "interval");
}

}  // namespace
}  // namespace cowshed::cowtop
