#include <cowshed/tests/cow/proc/fake_proc.h>
#include <cowshed/tests/support/failure.h>
#include <cowshed/tools/cowtop/measure/selection.h>

namespace cowshed::cowtop {
namespace {

// Measures whom it is told to, and nobody of `forbidden` or `gone`.
class FakeBackend : public cow::Backend {
 public:
  std::string_view name() const override { return "fake"; }
  bool exact() const override { return true; }
  Expected<void> track_command(pid_t /*child*/) override { return {}; }
  Expected<cow::Attached> attach(const std::vector<pid_t>& roots) override {
    asked_for.push_back(roots);
    cow::Attached result;
    for (const pid_t pid : roots) {
      const std::string text = "PID " + std::to_string(pid);
      if (gone.contains(pid)) {
        result.refused.push_back({ErrorCode::no_such_process, 0, text + ": gone"});
      } else if (forbidden.contains(pid)) {
        result.refused.push_back({ErrorCode::permission_denied, 0, text + ": forbidden"});
      } else {
        measured.insert(pid);
        ++result.processes;
      }
    }
    if (result.processes == 0) return tl::make_unexpected(result.refused.front());
    return result;
  }
  bool measures(pid_t pid) const override { return measured.contains(pid); }
  Expected<void> sample() override { return {}; }
  std::chrono::milliseconds interval() const override { return {}; }
  bool any_alive() const override { return !measured.empty(); }
  using Backend::measurement;
  cow::Measurement measurement(const cow::CodeOf& /*code*/) const override { return {}; }
  void merge_ended(std::size_t /*most*/) override {}
  std::vector<cow::ProcessCopies> take_ended() override { return {}; }

  std::set<pid_t> measured;
  std::set<pid_t> forbidden;
  std::set<pid_t> gone;
  std::vector<std::vector<pid_t>> asked_for;
};

class SelectionTest : public cow::FakeProc {
 protected:
  void process(pid_t pid, const std::string& comm, char state = 'S', int bytes = 4096,
               int start = 9) const {
    write(std::to_string(pid) + "/stat", std::to_string(pid) + " (" + comm + ") " + state +
                                             " 1 1 1 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 " +
                                             std::to_string(start) + " " + std::to_string(bytes) +
                                             " 1\n");
  }
  SelectedProcesses open(Selection selection) {
    return SelectedProcesses::open(std::move(selection), proc()).value();
  }
  // As soon as it is its turn again.  `most`: to wait where none is asked for, in 10 ms.
  Expected<cow::Attached> attach_new(SelectedProcesses& selected, int most = 6000) {
    const std::size_t before = backend_.asked_for.size();
    for (int i = 0; i < most; ++i) {
      auto attached = selected.attach_new(backend_);
      if (!attached || backend_.asked_for.size() > before) return attached;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return cow::Attached{};
  }

  FakeBackend backend_;
};

TEST_F(SelectionTest, ByPidIsAskedOnce) {
  auto selected = open({Selection::By::pid, {7, 9}, ""});
  backend_.gone = {9};
  EXPECT_EQ(refused_line(selected.attach(backend_).value()), "not measured: PID 9: gone");
  EXPECT_FALSE(selected.grows());
  EXPECT_THAT(backend_.asked_for, ElementsAre(ElementsAre(7, 9)));
}

TEST_F(SelectionTest, CowtopItselfIsNeverMeasured) {
  const pid_t self = ::getpid();
  auto named = open({Selection::By::pid, {self}, ""});
  EXPECT_THAT(failure_of(named.attach(backend_)).message, HasSubstr("is cowtop itself"));
  process(self, "cowtop");
  process(7, "server");
  auto all = open({Selection::By::comm, {}, "."});
  ASSERT_TRUE(all.attach(backend_));
  EXPECT_THAT(backend_.asked_for, ElementsAre(ElementsAre(7)));
}

TEST_F(SelectionTest, ByNameAlsoThoseThatComeOrChangeTheirNames) {
  process(5, "kserver", 'S', 0);
  process(6, "server", 'Z');
  process(7, "my server (x)");
  process(8, "sh");
  auto selected = open({Selection::By::comm, {}, "serv.r"});
  EXPECT_EQ(selected.attach(backend_).value().processes, 1);
  EXPECT_TRUE(selected.grows());
  process(8, "server");
  process(9, "server");
  EXPECT_EQ(attach_new(selected).value().processes, 2);
  EXPECT_EQ(attach_new(selected, 200).value().processes, 0) << "none";
  EXPECT_THAT(backend_.asked_for, ElementsAre(ElementsAre(7), ElementsAre(8, 9)));
}

TEST_F(SelectionTest, NoExpressionTakesLongForAName) {
  process(7, "aaaaaaaaaaaaaaa");
  process(8, "worker-12");
  auto none = open({Selection::By::comm, {}, "^((((a*)*)*)*)*(((a|a)*)*)*b$"});
  EXPECT_FALSE(none.attach(backend_));
  auto some = open({Selection::By::comm, {}, std::string(126, '(') + "a" + std::string(126, ')')});
  ASSERT_TRUE(some.attach(backend_));
  auto digits = open({Selection::By::comm, {}, R"(^(?:worker|\w{2,9}er)-\d{1,3}$)"});
  ASSERT_TRUE(digits.attach(backend_));
  EXPECT_THAT(backend_.asked_for, ElementsAre(ElementsAre(7), ElementsAre(8)));
}

TEST_F(SelectionTest, WhoIsRefusedIsNotAskedForAgain) {
  for (const pid_t pid : {7, 8, 9}) process(pid, "server");
  backend_.forbidden = {8};
  backend_.gone = {9};
  auto selected = open({Selection::By::comm, {}, "server"});
  EXPECT_EQ(refused_line(selected.attach(backend_).value()), "not measured: PID 8: forbidden")
      << "9 has just ended";
  process(10, "server");
  ASSERT_TRUE(attach_new(selected));
  backend_.gone = {};
  process(9, "server", 'S', 4096, 10);  // another one
  ASSERT_TRUE(attach_new(selected));
  EXPECT_THAT(backend_.asked_for,
              ElementsAre(ElementsAre(7, 8, 9), ElementsAre(10), ElementsAre(9)));
}

TEST_F(SelectionTest, NoneFoundIsAnError) {
  process(7, "server");
  auto selected = open({Selection::By::comm, {}, "^erver"});
  EXPECT_EQ(failure_of(selected.attach(backend_)).message,
            "--comm ^erver: there is no such process");
  EXPECT_THAT(backend_.asked_for, IsEmpty());
}

TEST_F(SelectionTest, AThreadIsNoProcess) {
  process(7, "server");
  write("8/stat", "8 (server) S 1 0");
  write("8/status", "Name:\tserver\nTgid:\t7\n");
  auto selected = open({Selection::By::pid, {8}, ""});
  EXPECT_EQ(failure_of(selected.attach(backend_)).message,
            "PID 8: is a thread of PID 7: name that");
}

TEST_F(SelectionTest, WhatCannotBeLookedFor) {
  const auto why_not = [&](Selection::By by, const char* text) {
    return failure_of(SelectedProcesses::open({by, {}, text}, proc())).message;
  };
  EXPECT_EQ(why_not(Selection::By::comm, "("), "--comm: '(' is not a regular expression");
  for (const std::string& large :
       {std::string(100'000, '('), std::string(300, 'a'), std::string("(a?){50000}"),
        std::string("((a{5}){5}){5}"), std::string("a{0,101}")}) {
    EXPECT_THAT(why_not(Selection::By::comm, large.c_str()), HasSubstr("is too large"));
  }
  EXPECT_THAT(why_not(Selection::By::comm, R"((a)\1)"), HasSubstr("is not a regular expression"));
  EXPECT_THAT(why_not(Selection::By::cgroup, "/no/such"), HasSubstr("no such cgroup"));
}

TEST_F(SelectionTest, ByTheIdOfAContainer) {
  const std::string id = "0123456789ab" + std::string(52, 'c');
  for (const pid_t pid : {7, 8, 9}) process(pid, "x");
  write("7/cgroup", "0::/docker/" + id + "\n");
  write("8/cgroup", "0::/docker/" + std::string(64, 'd') + "\n");
  write("9/cgroup", "0::/../docker-" + id + ".scope\n");  // as another container sees it
  auto selected = open({Selection::By::cgroup, {}, "0123456789ab"});
  ASSERT_TRUE(selected.attach(backend_));
  EXPECT_THAT(backend_.asked_for, ElementsAre(UnorderedElementsAre(7, 9)));
  auto none = open({Selection::By::cgroup, {}, std::string(12, 'e')});
  EXPECT_EQ(failure_of(none.attach(backend_)).message,
            "--cgroup eeeeeeeeeeee: no process is in it");
}

TEST_F(SelectionTest, ByCgroupWithThoseBelow) {
  write("cgroup/a/cgroup.procs", "7\n8\n");
  write("cgroup/a/b/cgroup.procs", "9\n");
  write("cgroup/a/memory.max", "max\n");
  for (const pid_t pid : {7, 8, 9, 10}) process(pid, "x");
  // A folder below it stands in for the one that is mounted.
  const std::string path = "/sys/fs/cgroup/../../.." + (root_ / "cgroup/a").string();
  auto selected = open({Selection::By::cgroup, {}, path});
  EXPECT_EQ(selected.attach(backend_).value().processes, 3);
  write("cgroup/a/c/cgroup.procs", "10\n");
  EXPECT_EQ(attach_new(selected).value().processes, 1);
  std::filesystem::remove_all(root_ / "cgroup");
  EXPECT_TRUE(attach_new(selected, 200)) << "the cgroup is gone";
}

}  // namespace
}  // namespace cowshed::cowtop
