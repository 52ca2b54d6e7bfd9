#include <cowshed/cow/fork_copies.h>
#include <cowshed/cow/open_backend.h>
#include <cowshed/tests/cow/backends/measure_command.h>
#include <cowshed/tests/cow/children.h>
#include <cowshed/tests/subjects/copiers.h>
#include <cowshed/tests/support/failure.h>

// What holds for every backend, each against the same programs.
namespace cowshed::cow {
namespace {

using cowshed::test::Copiers;

constexpr std::array kBackends = {BackendChoice::tracepoint, BackendChoice::pagemap};

std::string name_of(BackendChoice choice) {
  return choice == BackendChoice::tracepoint ? "tracepoint" : "pagemap";
}

// Null where it cannot run here: its test is skipped then.
std::unique_ptr<Backend> opened(BackendChoice choice) {
  ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);  // the leak checker is a process of its own
  auto backend = open_backend(choice);
  if (backend) {
    EXPECT_EQ(backend->notice, "");
    return std::move(backend->backend);
  }
  EXPECT_EQ(choice, BackendChoice::tracepoint) << backend.error().message;
  return nullptr;
}

// What a process copies of its own, in pages: its stack and its libraries' data.
constexpr std::uint64_t kOwnPages = 60;
// The kernel also copies for the last of the sharers while a CPU's list refers to a page.
constexpr std::uint64_t kNotReused = 100;
constexpr std::uint64_t kManyPages = 100'000;

struct Truth {
  std::uint64_t least = 0;
  std::uint64_t most = 0;
};
constexpr Truth exactly(std::uint64_t value) { return {value, value}; }
constexpr Truth about(std::uint64_t value) { return {value, value + kOwnPages}; }
constexpr std::optional<Truth> kAbsent;  // the backend cannot know that, and has to say so

using Value = std::optional<std::uint64_t>;
constexpr int kEachChild = -1;

// A figure of the process of that number, or of each child.
struct Figure {
  const char* name;
  std::optional<Truth> exact;
  std::optional<Truth> sampled;
  int process = kEachChild;
};

Figure figure(const char* name, Truth truth) { return {name, truth, truth}; }
// Only tracepoints count it.
Figure counted(const char* name, Truth truth) { return {name, truth, kAbsent}; }
Figure of_process(int number, Figure figure) {
  figure.process = number;
  return figure;
}

std::map<std::string, Value> figures_of(const ProcessCopies& process) {
  const bool executed = process.comm == "copy_subject" && !process.shares_memory;
  Value still_shared;
  Value its_own;
  Value resident;
  if (process.memory) {
    still_shared = process.memory->shared_bytes / kPageSize;
    its_own = process.memory->private_bytes / kPageSize;
    if (executed) resident = *still_shared + *its_own;
  }
  Value arena;
  if (process.arenas.size() == 1 && process.arenas[0].name == "subject" &&
      process.arenas[0].bytes.value_or(0) >= 2000 * kPageSize) {
    arena = process.arenas[0].copied_pages;
  }
  return {{"anon", process.copied_anon_pages},
          {"file", process.copied_file_pages},
          {"anon or settled",
           process.copied_anon_pages.value_or(0) + process.copied_shared_file_pages.value_or(0)},
          {"reused", process.reused_pages},
          {"zero page writes", process.zero_page_writes},
          {"zero filled", process.zero_filled_pages},
          {"huge splits", process.huge_splits},
          {"write notify", process.write_notify_faults},
          {"failed", process.failed_faults},
          {"other", process.other_faults},
          {"before the exec", process.copied_pages_before_exec},
          {"execs of exe", process.comm == "exe" ? process.execs : 0},
          {"shared at the fork", process.shared_at_fork_bytes.value_or(0) / kPageSize},
          {"still shared", still_shared},
          {"its own", its_own},
          {"resident after the exec", resident},
          {"held at the end", process.held_at_end_bytes.value_or(0) / kPageSize},
          {"copied of the arena", arena}};
}

using Words = std::vector<std::string>;

struct Case {
  const char* name;
  Words command;
  int linger_ms;
  std::size_t processes;
  std::vector<Figure> figures;
};

std::ostream& operator<<(std::ostream& out, const Case& wanted) { return out << wanted.name; }

std::vector<Case> cases() {
  constexpr Truth kReused = {1000 - kNotReused, 1000 + kOwnPages};
  constexpr Truth kNearlyNone = {0, kOwnPages + kNotReused};
  // Their last word is for how many milliseconds they linger.
  const auto copies = [](const char* children, const char* pages) -> Words {
    return {COPY_SUBJECT, "4000", children, pages};
  };
  const auto arena = [](const char* mode, const char* pages) -> Words {
    return {SHARE_SUBJECT, "arena", mode, "2000", pages};
  };
  const auto kind = [](const char* name) -> Words { return {COPY_SUBJECT, name, "1000"}; };
  return {
      Case("Reading", copies("2", "0"), 600, 3,
           {figure("anon", about(0)), figure("still shared", {3940, 4200}),
            figure("its own", {0, 80})}),
      Case("SomeOfIt", copies("3", "1500"), 600, 4,
           {figure("anon", about(1500)), figure("still shared", {2440, 2700}),
            figure("its own", {1500, 1580}), figure("shared at the fork", {3800, kManyPages})}),
      Case("AllOfIt", copies("2", "4000"), 600, 3,
           {figure("anon", about(4000)), figure("still shared", {0, 200}),
            counted("reused", about(0)), counted("zero page writes", about(0)),
            counted("zero filled", {0, 100}), counted("huge splits", exactly(0)),
            counted("write notify", exactly(0)), counted("failed", exactly(0)),
            counted("other", {0, kManyPages})}),
      Case("AnArenaThatIsRead", arena("strict", "0"), 600, 3,
           {figure("copied of the arena", exactly(0)), figure("still shared", {2000, kManyPages}),
            figure("shared at the fork", {2000, kManyPages})}),
      Case("AnArenaThatIsWritten", arena("lenient", "321"), 600, 3,
           {figure("copied of the arena", exactly(321)),
            figure("still shared", {2000 - 321, kManyPages}), figure("its own", {321, kManyPages}),
            figure("file", {321, kManyPages})}),
      Case("ASettledHeap", {SHARE_SUBJECT, "heap", "settled", "20000", "3000"}, 600, 3,
           {figure("anon or settled", about(3000)), figure("shared at the fork", {20'000, 21'000}),
            figure("still shared", {17'000 - 200, 18'000}), figure("its own", {3000, 3500}),
            figure("held at the end", {0, 21'000})}),  // 0: before Linux 6.16
      // The sampled backend cannot know whose copies they were, and has them once: with the child.
      Case("TheParentWritesFirst", kind("parent_first"), 200, 2,
           {of_process(0, counted("anon", about(1000))), Figure("anon", kNearlyNone, about(1000)),
            counted("reused", kReused)}),
      Case("TheChildWritesFirst", kind("child_first"), 200, 2,
           {figure("anon", about(1000)), of_process(0, counted("anon", kNearlyNone)),
            of_process(0, counted("reused", kReused))}),
      Case("BeforeAndAfterExec", kind("exec"), 200, 2,
           {figure("execs of exe", exactly(1)),
            figure("before the exec", {1000, 1000 + 2 * kOwnPages}),
            figure("anon", {1000, 1000 + 2 * kOwnPages}),
            figure("file", {1000, 1000 + 2 * kOwnPages})}),
      Case("NestedWorkers", kind("nested"), 200, 7, {}),
      // As shells and posix_spawn start programs: what it shares is its own affair again.
      Case("AVforkedChildThatExecuted", {"sh", "-c", "\"$0\" 300 1 100 $1; true", COPY_SUBJECT},
           600, 3, {of_process(1, figure("resident after the exec", {300, kManyPages}))}),
  };
}

class Conformance : public ::testing::TestWithParam<std::tuple<BackendChoice, Case>> {
 protected:
  static bool is_exact() { return std::get<0>(GetParam()) == BackendChoice::tracepoint; }

  static std::string wrong(const Figure& figure, const ProcessCopies& process) {
    const auto& truth = is_exact() ? figure.exact : figure.sampled;
    const Value value = figures_of(process).at(figure.name);
    if (value.has_value() == truth.has_value() &&
        (!value || (*value >= truth->least && *value <= truth->most))) {
      return "";
    }
    return std::string(figure.name) + " of " + process.comm + ": " +
           (value ? std::to_string(*value) : "absent") + "\n";
  }

  static std::string wrong_figures(const Measurement& measured, const Case& wanted) {
    const std::vector<ProcessCopies>& processes = measured.processes;
    if (processes.size() != wanted.processes) return "not every process was seen\n";
    std::string text;
    for (const Figure& figure : wanted.figures) {
      for (std::size_t i = 0; i < processes.size(); ++i) {
        const bool is_meant =
            figure.process == kEachChild ? i > 0 : i == static_cast<std::size_t>(figure.process);
        if (is_meant) text += wrong(figure, processes[i]);
      }
    }
    return text;
  }

  // Whether that depends on when /proc was read.
  static bool is_sampled(const std::string& found) {
    const auto has = [&](const char* text) { return found.find(text) != std::string::npos; };
    return has("absent") || has("still shared") || has("its own");
  }

  // The sums of two workers, that copied 1000 pages each, and of two children of each.
  static std::string wrong_sums(const Measurement& measured) {
    const auto& processes = measured.processes;
    const auto trees = subtrees(measured);
    std::string text;
    for (std::size_t i = 0; i < processes.size(); ++i) {
      const bool is_worker = i > 0 && processes[i].ppid == processes[0].pid;
      const std::uint64_t size = i == 0 ? 7 : is_worker ? 3 : 1;
      const std::uint64_t copies = 1000 * (i == 0 ? 6 : size);
      const std::uint64_t pages = trees[i].copied_pages.value_or(0);
      if (trees[i].processes != size || pages < copies ||
          pages > copies + size * (kOwnPages + kNotReused)) {
        text += std::to_string(trees[i].processes) + " with " + std::to_string(pages) + "\n";
      }
    }
    return text;
  }

  static void expect_consistent(const Measurement& measured) {
    EXPECT_EQ(measured.backend, name_of(std::get<0>(GetParam())));
    EXPECT_EQ(measured.exact, is_exact());
    EXPECT_EQ(measured.lost_events, is_exact() ? Value(0) : std::nullopt);
    std::set<pid_t> pids;
    for (const ProcessCopies& process : measured.processes) {
      const bool is_root = pids.empty();
      EXPECT_TRUE(is_root || pids.contains(process.ppid));
      pids.insert(process.pid);
      EXPECT_EQ(process.role, is_root ? Role::root : Role::child);
      EXPECT_FALSE(process.alive);
      if (process.memory) EXPECT_LT(measured.memory_age_s(process), measured.duration_s);
    }
  }
};

// What is counted is right at once.  What is sampled, or absent because /proc was not read in time,
// may be better on a machine that is less busy: then once more, with more time.
TEST_P(Conformance, EachFigureIsRightOrAbsent) {
  const auto& [choice, wanted] = GetParam();
  std::string found;
  for (const int factor : is_exact() ? std::vector{5, 25} : std::vector{1, 5, 25}) {
    const auto backend = opened(choice);
    if (!backend) GTEST_SKIP() << "no tracepoints here";
    std::vector<std::string> command = wanted.command;
    command.push_back(std::to_string(wanted.linger_ms * factor));
    const Measurement measured = test::measure_command(*backend, command);
    expect_consistent(measured);
    found = wrong_figures(measured, wanted);
    if (wanted.name == std::string("NestedWorkers")) found += wrong_sums(measured);
    if (found.empty() || (is_exact() && !is_sampled(found))) break;
  }
  EXPECT_EQ(found, "");
}

INSTANTIATE_TEST_SUITE_P(Each, Conformance,
                         ::testing::Combine(::testing::ValuesIn(kBackends),
                                            ::testing::ValuesIn(cases())),
                         [](const auto& instance) {
                           return std::string(std::get<1>(instance.param).name) + "_" +
                                  name_of(std::get<0>(instance.param));
                         });

class EachBackend : public ::testing::TestWithParam<BackendChoice> {
 protected:
  void SetUp() override {
    backend_ = opened(GetParam());
    if (!backend_) GTEST_SKIP() << "no tracepoints here";
  }

  std::vector<pid_t> pids(Role role) const {
    std::vector<pid_t> result;
    for (const ProcessCopies& process : backend_->measurement().processes)
      if (process.role == role) result.push_back(process.pid);
    return result;
  }
  void sample_until(const std::function<bool()>& is_done) const {
    constexpr int kMostSamples = 300;
    for (int i = 0; i < kMostSamples; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      ASSERT_TRUE(backend_->sample());
      if (is_done()) return;
    }
  }
  // The PID of one that has ended, and that nobody has yet.
  static pid_t ended() {
    return cowshed::test::Child([] { return 0; }).pid();
  }

  std::unique_ptr<Backend> backend_;
};

INSTANTIATE_TEST_SUITE_P(Each, EachBackend, ::testing::ValuesIn(kBackends),
                         [](const auto& instance) { return name_of(instance.param); });

TEST_P(EachBackend, EachIsARootOfItsOwn) {
  const Copiers first(2);
  const Copiers second(1);
  const Attached attached = backend_->attach({second.pid(), first.pid()}).value();
  EXPECT_EQ(attached.processes, 5);
  EXPECT_THAT(attached.refused, SizeIs(0));
  ASSERT_TRUE(backend_->sample());
  EXPECT_THAT(pids(Role::root), UnorderedElementsAre(first.pid(), second.pid()));
  EXPECT_THAT(pids(Role::child),
              UnorderedElementsAre(first.children()[0], first.children()[1], second.children()[0]));
  for (const pid_t pid : first.children()) EXPECT_TRUE(backend_->measures(pid));
  EXPECT_FALSE(backend_->measures(::getpid()));
}

TEST_P(EachBackend, OneThatDescendsFromAnotherIsNoRoot) {
  const Copiers tree(2);
  const std::vector<pid_t>& children = tree.children();
  const std::vector<pid_t> all = {children[0], tree.pid(), children[0], children[1], tree.pid()};
  EXPECT_EQ(backend_->attach(all).value().processes, 3);
  EXPECT_EQ(backend_->attach(all).value().processes, 0) << "again";
  ASSERT_TRUE(backend_->sample());
  EXPECT_EQ(backend_->attach({children[0]}).value().processes, 0);
  EXPECT_THAT(pids(Role::root), ElementsAre(tree.pid()));
  EXPECT_THAT(pids(Role::child), UnorderedElementsAre(children[0], children[1]));
}

TEST_P(EachBackend, MoreOfThemLater) {
  const Copiers tree(2);
  const std::vector<pid_t>& children = tree.children();
  EXPECT_EQ(backend_->attach({children[0]}).value().processes, 1);
  ASSERT_TRUE(backend_->sample());
  EXPECT_EQ(backend_->attach({tree.pid()}).value().processes, 2);
  ASSERT_TRUE(backend_->sample());
  EXPECT_THAT(pids(Role::root), UnorderedElementsAre(tree.pid(), children[0]))
      << "it stays what it was";
  EXPECT_THAT(pids(Role::child), ElementsAre(children[1]));
}

TEST_P(EachBackend, OneThatHasEndedKeepsNobodyFromIt) {
  const Copiers tree(1);
  const pid_t gone = ended();
  const Attached attached = backend_->attach({gone, tree.pid()}).value();
  EXPECT_EQ(attached.processes, 2);
  ASSERT_THAT(attached.refused, SizeIs(1));
  EXPECT_EQ(attached.refused[0].code, ErrorCode::no_such_process);
  EXPECT_THAT(attached.refused[0].message, HasSubstr("PID " + std::to_string(gone)));
  EXPECT_EQ(failure_of(backend_->attach({gone})).code, ErrorCode::no_such_process);
}

TEST_P(EachBackend, AKernelThreadHasNoMemory) {
  const ProcFiles proc;
  const auto processes = proc.processes().value();
  const auto thread = std::ranges::find_if(processes, [&](pid_t pid) {
    const auto stat = proc.stat(pid);
    return stat && stat->virtual_bytes == 0 && stat->state == 'S';
  });
  if (thread == processes.end()) GTEST_SKIP() << "this PID namespace has none";
  const Error error = failure_of(backend_->attach({*thread}));
  EXPECT_EQ(error.code, ErrorCode::no_such_process);
  EXPECT_THAT(error.message, HasSubstr("memory of its own"));
}

// From above, as it is with PID 1.
TEST_P(EachBackend, TheCallerIsNotMeasuredUnlessNamed) {
  const test::PausedChild child([] {});
  const auto attached = backend_->attach({::getppid()});
  if (!attached) GTEST_SKIP() << attached.error().message;
  ASSERT_TRUE(backend_->sample());
  EXPECT_TRUE(backend_->measures(::getppid()));
  EXPECT_FALSE(backend_->measures(::getpid()));
  EXPECT_FALSE(backend_->measures(child.pid()));
  for (const ProcessCopies& process : backend_->measurement().processes)
    EXPECT_NE(process.pid, ::getpid());
}

TEST_P(EachBackend, EndedProcessesAreTakenOnce) {
  const Copiers tree(3);
  ASSERT_TRUE(backend_->attach({tree.pid()}));
  ASSERT_TRUE(backend_->sample());
  EXPECT_THAT(backend_->take_ended(), SizeIs(0));
  ::kill(tree.children()[1], SIGKILL);
  std::vector<ProcessCopies> taken;
  sample_until([&] {
    taken = backend_->take_ended();
    EXPECT_EQ(taken.size() + backend_->measurement().processes.size(), 4U);
    return !taken.empty();
  });
  ASSERT_THAT(taken, SizeIs(1));
  EXPECT_EQ(taken[0].pid, tree.children()[1]);
  EXPECT_FALSE(taken[0].alive);
  EXPECT_THAT(pids(Role::child), UnorderedElementsAre(tree.children()[0], tree.children()[2]));
  ASSERT_TRUE(backend_->sample());
  EXPECT_THAT(backend_->take_ended(), SizeIs(0));
}

TEST_P(EachBackend, ManyThatEndedBecomeFewAndTheirSumsStay) {
  constexpr std::size_t kChildren = 50;
  constexpr std::size_t kMost = 8;
  const Copiers tree(kChildren);
  ASSERT_TRUE(backend_->attach({tree.pid()}));
  ASSERT_TRUE(backend_->sample());
  for (std::size_t i = 1; i < kChildren; ++i) ::kill(tree.children()[i], SIGKILL);
  const auto totals = [](const Measurement& measurement) {
    std::map<std::string, std::uint64_t> result;
    for (const ProcessCopies& process : measurement.processes) {
      result["processes"] += process.processes;
      result["copied"] += process.all_copied_pages().value_or(0);
      result["shared"] += process.shared_at_fork_bytes.value_or(0);
      result["zero"] += process.zero_filled_pages.value_or(0);
      result["other"] += process.other_faults.value_or(0);
    }
    return result;
  };
  std::size_t listed = kChildren + 1;
  sample_until([&] {
    const auto before = totals(backend_->measurement());
    backend_->merge_ended(kMost);
    const Measurement after = backend_->measurement();
    EXPECT_EQ(totals(after), before);
    EXPECT_EQ(after.process_count(), kChildren + 1);
    listed = after.processes.size();
    return listed <= kMost + 2;
  });
  EXPECT_LE(listed, kMost + 2);
  EXPECT_TRUE(backend_->measures(tree.pid()));
  EXPECT_TRUE(backend_->measures(tree.children()[0]));
}

// Whose parents are taken before them, again and again.
TEST_P(EachBackend, ALineOfForksIsTakenAsItEnds) {
  std::array<int, 2> start{};
  ASSERT_EQ(::pipe2(start.data(), O_CLOEXEC), 0);
  cowshed::test::Subprocess subject(
      {"sh", "-c", "f() { [ $1 = 0 ] || { sleep 0.05; f $(($1-1)) & }; }; read line; f 40"},
      [&] { ::dup2(start[0], STDIN_FILENO); });
  ASSERT_TRUE(backend_->attach({subject.pid()}));
  for (const int end : start) ::close(end);
  std::size_t taken = 0;
  std::size_t most = 0;
  constexpr int kMostSamples = 3000;
  for (int i = 0; i < kMostSamples && (i == 0 || backend_->any_alive()); ++i) {
    ASSERT_TRUE(backend_->sample());
    taken += backend_->take_ended().size();
    most = std::max(most, backend_->measurement().processes.size());
    std::this_thread::sleep_for(backend_->interval());
  }
  EXPECT_FALSE(backend_->any_alive());
  // Sampled, those are found that have not ended by then.
  if (backend_->exact()) EXPECT_GT(taken, 80U);
  EXPECT_LT(most, 40U);
}

TEST_P(EachBackend, AThousandRoots) {
  const Copiers tree(1000);
  const std::vector<pid_t>& children = tree.children();
  EXPECT_EQ(backend_->attach(children).value().processes, 1000);
  ASSERT_TRUE(backend_->sample());
  EXPECT_THAT(pids(Role::root), SizeIs(1000));
  for (std::size_t i = 0; i < children.size(); i += 2) ::kill(children[i], SIGKILL);
  EXPECT_EQ(backend_->attach({tree.pid()}).value().refused.size(), 0U);
  ASSERT_TRUE(backend_->sample());
  EXPECT_THAT(pids(Role::root), SizeIs(1001));
  EXPECT_THAT(pids(Role::child), SizeIs(0));
}

}  // namespace
}  // namespace cowshed::cow
