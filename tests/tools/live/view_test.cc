#include <nlohmann/json.hpp>
#include <regex>

#include <cowshed/probes/support.h>
#include <cowshed/tests/support/scale.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/live/model/columns.h>

namespace cowshed::cowtop {
namespace {

// A program in a terminal, which is tmux's: keys are pressed and the screen is read.
class Tmux {
 public:
  struct Options {
    int columns = 80;
    int rows = 24;
    std::string environment = "LC_ALL=C.UTF-8";  // words for env(1)
  };
  // Runs the words in a shell.  When they end, the screen says "status N", and whether the
  // terminal's settings are "as before".
  explicit Tmux(const std::string& words) : Tmux(words, Options()) {}
  Tmux(const std::string& words, const Options& options) {
    // A shell that has a trap goes on after the Ctrl-C that ends its command.  The leak checker
    // waits for ever in a process whose terminal goes: with it comes SIGCONT, which takes back the
    // SIGSTOP that the checker had sent.
    const std::string script = "trap : INT; before=$(stty -g)\n" +
                               std::string("env -u NO_COLOR ASAN_OPTIONS=detect_leaks=0 ") +
                               options.environment + " " + words +
                               "\nstatus=$?; [ \"$before\" = \"$(stty -g)\" ] && now=before || "
                               "now=after; echo \"status $status, as $now\"; exec sleep 1000";
    run({"-u", "-f", "/dev/null", "new-session", "-d", "-x", std::to_string(options.columns), "-y",
         std::to_string(options.rows), script});
  }
  Tmux(const Tmux&) = delete;
  Tmux& operator=(const Tmux&) = delete;
  ~Tmux() { run({"kill-server"}); }

  // Keys by tmux's names: "Enter", "C-c", "j".
  void press(std::vector<std::string> keys) {
    keys.insert(keys.begin(), "send-keys");
    run(keys);
  }
  void type(const std::string& text) { run({"send-keys", "-l", text}); }
  void resize(int columns, int rows) {
    run({"resize-window", "-x", std::to_string(columns), "-y", std::to_string(rows)});
  }

  // Without the spaces at the ends of lines.
  std::string screen() const { return run({"capture-pane", "-p"}); }
  std::string screen_with_attributes() const { return run({"capture-pane", "-p", "-e"}); }
  // What is on the screen when `text` is, or after much too long a time.
  std::string wait_for(std::string_view text) const {
    std::string found;
    wait_until([&](const std::string& screen) {
      found = screen;
      return screen.find(text) != std::string::npos;
    });
    return found;
  }
  // Whether the screen becomes one like that.
  bool wait_until(const std::function<bool(const std::string& screen)>& is_it) const {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < deadline) {
      if (is_it(screen())) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
    }
    return false;
  }
  // Of the shell.
  pid_t pid() const { return std::stoi(run({"list-panes", "-F", "#{pane_pid}"})); }

 private:
  std::string run(std::vector<std::string> words) const {
    words.insert(words.begin(), {"env", "LC_ALL=C.UTF-8", "tmux", "-S", folder_ / "socket"});
    return test::run(words).out;
  }

  TestFolder folder_;
};

// What any backend does in the same way; the pagemap backend needs no privilege and loads nothing.
const std::string cowtop_by_pagemap = std::string(COWTOP) + " --live --backend pagemap ";
// What is on the screen only while the view is.
constexpr const char* kView = "CURVE";
// What is in the report that comes after it.
constexpr const char* kReport = "cowtop help WORD";

// cowtop in a terminal, by the pagemap backend.
struct Live : Tmux {
  explicit Live(const std::string& words, const Options& options = {})
      : Tmux(cowtop_by_pagemap + (words[0] == '-' ? words : "-- " + words), options) {}
  // What the screen shows after that.
  std::string ended_by(const std::string& key) {
    press({key});
    return wait_for("as before");
  }
  pid_t cowtop() const {
    return std::stoi(test::run({"pgrep", "-n", "-x", "-P", std::to_string(pid()), "cowtop"}).out);
  }
};

// Of processes that run.
struct Running : Live {
  explicit Running(const std::string& words, const Options& options = {}) : Live(words, options) {
    wait_for("1 running");
  }
};

std::string attach_to(const test::Subprocess& subject) {
  return "-p " + std::to_string(subject.pid());
}

auto has_status(int status) {
  return HasSubstr("status " + std::to_string(status) + ", as before");
}

TEST(LiveView, ShowsACommandAndThenItsReport) {
  Live tmux("sh -c 'echo written; exit 7'");
  EXPECT_THAT(
      tmux.wait_for("exit status 7"),
      AllOf(HasSubstr("pagemap, sampled"), HasSubstr("sh (exit 7)"), Not(HasSubstr("written"))));
  tmux.press({"l"});
  EXPECT_THAT(tmux.wait_for("written"), HasSubstr(kView));
  EXPECT_THAT(tmux.ended_by("q"), AllOf(HasSubstr("written\n"), HasSubstr("sh forked no process"),
                                        HasSubstr(kReport), has_status(7), Not(HasSubstr(kView))));
}

TEST(LiveView, QLeavesTheCommandRunning) {
  TestFolder folder;
  const std::string go = folder / "go";
  ASSERT_EQ(::mkfifo(go.c_str(), S_IRUSR | S_IWUSR), 0);
  Live tmux("sh -c 'echo early; read line <" + go + "; echo late; exit 3'");
  tmux.wait_for("running");
  tmux.press({"q"});
  EXPECT_THAT(tmux.wait_for("early"), Not(HasSubstr(kReport)));
  // Where the report goes to a pipe, its reader's end is an error, and not cowtop's end.
  const std::string status = contents_of("/proc/" + std::to_string(tmux.cowtop()) + "/status");
  const auto ignored = std::stoull(status.substr(status.find("SigIgn:") + 7), nullptr, 16);
  EXPECT_TRUE((ignored >> (SIGPIPE - 1)) & 1);
  write_file(go, "\n");
  EXPECT_THAT(tmux.wait_for("as before"),
              AllOf(HasSubstr("early\nlate\n"), HasSubstr("sh forked no process"), has_status(3)));
}

TEST(LiveView, HowTheCommandEndedIsReported) {
  Running interrupted("sleep 100");
  EXPECT_THAT(interrupted.ended_by("C-c"),
              AllOf(HasSubstr("SIGINT"), HasSubstr(kReport), has_status(130)));
  Live killed("sh -c 'kill -9 $$'");
  killed.wait_for("exit status 137");
  EXPECT_THAT(killed.ended_by("q"), AllOf(HasSubstr("SIGKILL"), has_status(137)));
  const Live not_there("/no/such/command");
  EXPECT_THAT(not_there.wait_for("as before"),
              AllOf(HasSubstr("/no/such/command: cannot be run: No such file"), has_status(127)));
}

TEST(LiveView, WithoutAViewCtrlCStillPrintsTheSummary) {
  Tmux tmux(
      std::string(COWTOP) +
      " --backend pagemap -- sh -c 'trap \"exit 3\" INT; echo up; while :; do sleep 0.05; done'");
  tmux.wait_for("up");
  tmux.press({"C-c"});
  EXPECT_THAT(tmux.wait_for("as before"), AllOf(HasSubstr(kReport), has_status(3)));
}

TEST(LiveView, AnAttachedTreeUntilQOrItsEnd) {
  test::Subprocess subject({"sleep", "1000"});
  for (const char* key : {"q", "C-c"}) {
    Running tmux(attach_to(subject));
    EXPECT_THAT(tmux.ended_by(key), AllOf(HasSubstr(kReport), has_status(0)));
  }
  Running tmux(attach_to(subject));
  ::kill(subject.pid(), SIGKILL);
  subject.finish();
  EXPECT_THAT(tmux.wait_for("all processes have ended"), HasSubstr(kView));
  EXPECT_THAT(tmux.ended_by("C-c"), has_status(0));
}

// In the list of columns, and then other keys.
std::vector<std::string> choose_rss(const std::vector<std::string>& others = {}) {
  std::vector<std::string> keys(static_cast<std::size_t>(live::Column::rss), "Down");
  keys.insert(keys.begin(), "o");
  keys.push_back("Space");
  keys.insert(keys.end(), others.begin(), others.end());
  keys.push_back("Escape");
  return keys;
}

TEST(LiveView, PausesAndShowsMemory) {
  Running tmux("sleep 100", {120, 24});
  tmux.press(choose_rss({"Down", "Space"}));
  // PSS in MiB, and its age.
  EXPECT_TRUE(tmux.wait_until([](const std::string& screen) {
    return std::regex_search(screen, std::regex(R"(\d\.\d +\d\.\d +\d+s sleep)"));
  })) << tmux.screen();
  tmux.press({"p"});
  EXPECT_THAT(tmux.wait_for("PAUSED"), HasSubstr("PAUSED"));
}

// Also of those who are not on the screen.
TEST(LiveView, SortsAllProcessesByTheirRss) {
  TestFolder folder;
  const std::string giant = folder / "giant";
  ASSERT_EQ(::symlink("/bin/sh", giant.c_str()), 0);
  const std::string large = folder / "large";
  write_file(large, "all=$(head -c 30000000 /dev/zero | tr '\\0' x)\nsleep 100\n:\n");
  const std::string program = folder / "program";
  write_file(program, "for i in $(seq 40); do sleep 100 & done\n" + giant + " " + large + "\n:\n");
  Live tmux("sh " + program, {120, 24});
  tmux.wait_for("43 running");
  // By PID, flat: it is the last.
  tmux.press({"t", "<", "<", "<"});
  ASSERT_TRUE(tmux.wait_until([](const std::string& screen) {
    return screen.find("giant") == std::string::npos;
  })) << tmux.screen();
  tmux.press(choose_rss());
  tmux.wait_for("RSS");
  tmux.press({">", ">", ">", ">", ">", ">", ">"});
  EXPECT_TRUE(tmux.wait_until([&](const std::string& screen) {
    tmux.press({"g"});  // the selected row is kept on the screen wherever it comes
    return std::regex_search(screen, std::regex(R"(COMMAND *\n[> ]*\d+ .* \d\d\.\d giant)"));
  })) << tmux.screen();
}

TEST(LiveView, KeysThatMoveTheSelectionAndFold) {
  TestFolder folder;
  const std::string program = folder / "program";
  write_file(program, "for i in $(seq 40); do sleep 100 & done\nwait\n");
  Live tmux("sh " + program);
  tmux.wait_for("41 running");
  tmux.press({"<", "<"});  // by PID: the order stays
  // Of the rows on the screen.
  const auto selects = [&](std::ptrdiff_t row) {
    return tmux.wait_until([&](const std::string& screen) {
      const auto headings = screen.find("COMMAND\n");
      const auto selected = screen.find("\n>", headings);
      return selected != std::string::npos &&
             std::count(screen.begin() + static_cast<std::ptrdiff_t>(headings),
                        screen.begin() + static_cast<std::ptrdiff_t>(selected), '\n') == row;
    });
  };
  const auto shows = [&](const char* text, bool is_shown) {
    return tmux.wait_until([&](const std::string& screen) {
      return (screen.find(text) != std::string::npos) == is_shown;
    });
  };
  const auto wheel = [&](char button) { tmux.type(std::string("\x1b[M") + button + "%%"); };
  EXPECT_TRUE(selects(0)) << tmux.screen();
  tmux.press({"Down", "Down", "Up"});
  EXPECT_TRUE(selects(1)) << tmux.screen();
  wheel('a');
  EXPECT_TRUE(selects(4)) << tmux.screen();
  wheel('`');
  EXPECT_TRUE(selects(1)) << tmux.screen();
  const std::tuple<const char*, const char*, bool> keys[] = {{"End", " sh\n", false},
                                                             {"Home", " sh\n", true},
                                                             {"Left", "sleep", false},
                                                             {"Right", "sleep", true}};
  for (const auto& [key, text, is_shown] : keys) {
    tmux.press({key});
    EXPECT_TRUE(shows(text, is_shown)) << key << tmux.screen();
  }
  EXPECT_TRUE(selects(0)) << tmux.screen();
}

// A key has it ask between samples for what is pending.
TEST(LiveView, KeysWhereNoCopiesAreSampled) {
  if (const auto supported = probe_support(); !supported) GTEST_SKIP() << supported.error().message;
  Tmux tmux(std::string(COWTOP) + " --live -- sleep 100");
  tmux.wait_for("tracepoint, exact");
  tmux.press({"h", "h", "j", "p"});
  EXPECT_THAT(tmux.wait_for("PAUSED"), HasSubstr("tracepoint, exact"));
  tmux.press({"C-c"});
  EXPECT_THAT(tmux.wait_for("as before"), has_status(130));
}

// It is made out for that process alone, and for all once the view is paused.
TEST(LiveView, TheCodeOfTheSelectedProcess) {
  if (const auto supported = probe_support(); !supported) GTEST_SKIP() << supported.error().message;
  // Long enough to be seen alive on a busy machine: else its code has no names.
  Tmux tmux(std::string(COWTOP) + " --live -- sh -c '" + SITE_SUBJECT +
                " shares 200000; echo over; sleep 100'",
            {110, 40});
  tmux.press({"l"});
  tmux.wait_for("over");
  const std::string code = "site_subject::copy_often";
  const auto has_none = [&](const std::string& screen) {
    return screen.find(code) == std::string::npos;
  };
  // The one that copied comes first.
  tmux.press({"l", "a", "t", "g", "Enter"});
  EXPECT_THAT(tmux.wait_for(code), HasSubstr("code sites of this process"));
  tmux.press({"G"});
  EXPECT_TRUE(tmux.wait_until(has_none)) << tmux.screen();
  tmux.press({"Space"});
  tmux.wait_for("PAUSED");
  tmux.press({"g"});
  EXPECT_THAT(tmux.wait_for(code), HasSubstr("PAUSED"));
}

// These are pressed before cowtop has begun to measure, mostly before it runs.
TEST(LiveView, KeysBeforeTheProbesAreLoaded) {
  for (const char* backend : {"pagemap", "auto"}) {
    const std::string cowtop = std::string(COWTOP) + " --live --backend " + backend + " ";
    {
      Tmux tmux(cowtop + "-- sleep 100");
      tmux.resize(70, 20);
      tmux.press({"h", "p"});
      tmux.wait_for("PAUSED");
      EXPECT_THAT(tmux.wait_for("1 running"),
                  AllOf(HasSubstr("all about the selected process"), HasSubstr("PAUSED")));
      EXPECT_TRUE(tmux.wait_until(
          [](const std::string& screen) { return std::ranges::count(screen, '\n') == 20; }));
    }
    Tmux command(cowtop + "-- sh -c 'echo all; exit 3'");
    command.press({"q"});
    EXPECT_THAT(command.wait_for("as before"),
                AllOf(HasSubstr("all"), HasSubstr(kReport), has_status(3)));
  }
}

// The first screen is there before they are loaded; on a machine on which that is quick a signal
// may come later all the same.
TEST(LiveView, SignalsBeforeTheProbesAreLoaded) {
  int early = 0;
  for (const auto& [key, number] : {std::pair("C-c", SIGINT), std::pair("C-\\", SIGQUIT)}) {
    for (int tries = 0; tries < 5; ++tries) {
      Tmux tmux(std::string(COWTOP) + " --live -- sleep 100");
      tmux.wait_for("getting ready");
      tmux.press({key});
      const std::string screen = tmux.wait_for("as before");
      EXPECT_THAT(screen, AllOf(has_status(128 + number), Not(HasSubstr(kView))));
      const bool was_early = screen.find("the command was not run") != std::string::npos;
      // Neither: it came while cowtop forked the command, which does not inherit a mask.
      EXPECT_FALSE(was_early && screen.find(kReport) != std::string::npos) << screen;
      early += was_early ? 1 : 0;
    }
  }
  if (early == 0) GTEST_SKIP() << "the probes were loaded before any key was pressed";
}

TEST(LiveView, TheTerminalIsUsableWhateverSignalEndsCowtop) {
  test::Subprocess subject({"sleep", "1000"});
  for (const int signal :
       {SIGSEGV, SIGABRT, SIGBUS, SIGTRAP, SIGSYS, SIGXFSZ, SIGXCPU, SIGALRM, SIGVTALRM, SIGUSR1,
        SIGUSR2, SIGPOLL, SIGPROF, SIGPWR, SIGRTMIN, SIGRTMAX}) {
    const Running tmux(attach_to(subject));
    ::kill(tmux.cowtop(), signal);
    const bool is_the_sanitizers = signal == SIGSEGV || signal == SIGBUS;  // whose handlers exit
    const int status = test::kAddressSanitizer && is_the_sanitizers ? 1 : 128 + signal;
    EXPECT_THAT(tmux.wait_for("as before"), AllOf(has_status(status), Not(HasSubstr(kView))));
  }
  // It gives these to the command, as without a view.
  for (const int signal : {SIGTERM, SIGHUP}) {
    const Running tmux("sleep 100");
    ::kill(tmux.cowtop(), signal);
    EXPECT_THAT(tmux.wait_for("as before"),
                AllOf(has_status(128 + signal), HasSubstr(kReport), Not(HasSubstr(kView))));
  }
}

TEST(LiveView, NeitherTheMouseNorHalfAKeyHoldsItUp) {
  Running tmux("sleep 100");
  // As xterm sends them: button, column and row, from 33 on.
  tmux.type("\x1b[M &#");  // the heading PID, wherever the header ends
  tmux.type("\x1b[M &$");
  EXPECT_THAT(tmux.wait_for("PID"), HasSubstr("PID"));
  tmux.type("\x1b[M#?'");     // the button is up again
  tmux.type("\x1b[M\x22?'");  // another button
  tmux.type("\x1b[M");
  EXPECT_THAT(tmux.ended_by("C-c"), HasSubstr("as before"));
}

TEST(LiveView, ColoursAreLeftOut) {
  test::Subprocess subject({"sleep", "1000"});
  const auto has_colour = [&](const std::string& environment) {
    const Running tmux(attach_to(subject), {80, 24, "LC_ALL=C.UTF-8 " + environment});
    const std::string screen = tmux.screen_with_attributes();
    EXPECT_THAT(screen, HasSubstr("\x1b[")) << "headings and the selected row stand out";
    return screen.find("\x1b[36m") != std::string::npos;
  };
  EXPECT_TRUE(has_colour("TERM=screen"));
  EXPECT_TRUE(has_colour("NO_COLOR="));
  EXPECT_FALSE(has_colour("NO_COLOR=1"));
  EXPECT_FALSE(has_colour("TERM=vt100"));
}

// A view of bash's, stopped: what is on the screen then.
constexpr const char* kShell = "bash --norc --noprofile -i";
std::string stop_view(Tmux& tmux) {
  tmux.wait_for("bash-");
  tmux.type(cowtop_by_pagemap + "-- sleep 100");
  tmux.press({"Enter"});
  tmux.wait_for("1 running");
  tmux.press({"C-z"});
  return tmux.wait_for("Stopped");
}

TEST(LiveView, AClosedTerminalEndsTheMeasurement) {
  const pid_t cowtop = Running("sleep 100").cowtop();
  while (::kill(cowtop, 0) == 0) test::run({"sleep", "0.05"});  // the test's time limit ends it
}

TEST(LiveView, CtrlCIsNotForOneInTheBackground) {
  const TestFolder folder;
  const std::string path = folder / "recording";
  Tmux tmux("sh -c '" + std::string(COWTOP) + " record -o " + path +
            " -- sh -c \"echo up; sleep 2; exit 4\" & sleep 60'");
  tmux.wait_for("up");
  tmux.press({"C-c"});
  tmux.wait_for("status 130");
  EXPECT_THAT(tmux.wait_for("recorded"), HasSubstr("recorded 2 processes"));
  const auto report = nlohmann::json::parse(test::run({COWTOP, "report", "--json", path}).out);
  EXPECT_EQ(report["processes"][0]["exit_status"], 4);
}

TEST(LiveView, CtrlZStopsItAndItComesBack) {
  Tmux tmux(kShell);
  EXPECT_THAT(stop_view(tmux), Not(HasSubstr(kView)));
  tmux.type("fg");
  tmux.press({"Enter"});
  EXPECT_THAT(tmux.wait_for("1 running"), HasSubstr(kView));
  tmux.press({"C-c"});
  EXPECT_THAT(tmux.wait_for(kReport), HasSubstr("SIGINT"));
}

TEST(LiveView, OnlyWhereThereIsATerminalForIt) {
  TestFolder folder;
  const std::string file = folder / "report";
  for (const std::string& words : std::vector<std::string>{"true >" + file, "true </dev/null"})
    EXPECT_THAT(Live(words).wait_for("as before"), has_status(0)) << words;
  for (const std::string& words : {"--json -o " + file + " -- true", "-o " + file + " -- true"})
    EXPECT_THAT(Live(words).wait_for("as before"), has_status(125)) << words;
  for (const char* term : {"TERM=dumb", "TERM=no-such-terminal"}) {
    EXPECT_THAT(Live("true", {80, 24, term}).wait_for("as before"),
                AllOf(HasSubstr("terminfo does not say"), HasSubstr(kReport)));
  }
}

}  // namespace
}  // namespace cowshed::cowtop
