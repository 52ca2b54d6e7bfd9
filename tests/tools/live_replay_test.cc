#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>
#include <sys/stat.h>

#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/tools/live_recordings.h>
#include <cowshed/tests/tools/tmux.h>

namespace cowshed::cowtop {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class LiveReplay : public ::testing::Test {
 protected:
  LiveReplay() { record_server(path_); }
  std::string replay() const { return std::string(COWTOP) + " replay " + path_; }

  // Keys mean what they should once the view has begun.
  static void to_begin(Tmux& tmux) {
    tmux.wait_for("COMMAND");
    tmux.press({"Home"});
    tmux.wait_for("PAUSED");
  }

  TestFolder folder_;
  std::string path_ = folder_ / "run.cowtop";
};

TEST_F(LiveReplay, StepsThroughARecording) {
  Tmux tmux(replay());
  to_begin(tmux);
  expect_screen(tmux, "first");
  tmux.press({"Right"});
  expect_screen(tmux, "second");
  tmux.press({"End"});
  expect_screen(tmux, "last");
  tmux.press({"Left"});
  expect_screen(tmux, "last_but_one");
  tmux.press({"Home", "Left"});
  expect_screen(tmux, "first");
  tmux.press({"q"});
  tmux.wait_for("status 0, as before");
}

TEST_F(LiveReplay, PlaysFasterAndSlowerAndPauses) {
  Tmux tmux(replay());
  to_begin(tmux);
  tmux.press({"+", "+", "-"});
  tmux.wait_for("of 21.0 s, 2x");
  EXPECT_THAT(tmux.wait_for("PAUSED"), HasSubstr("PAUSED"));
  tmux.press({"+", "+", "+", "+", "+", "+"});
  tmux.press({"Space"});
  EXPECT_THAT(tmux.wait_for("at 21.0 s of 21.0 s, 128x"), Not(HasSubstr("PAUSED")));
}

TEST_F(LiveReplay, ShowsAllAboutAProcess) {
  Tmux tmux(replay(), {100, 50});
  to_begin(tmux);
  tmux.press({"Right", "Right"});
  tmux.press({"/"});
  tmux.type("worker-1");
  tmux.press({"Enter", "Enter"});
  expect_screen(tmux, "details");
  tmux.resize(60, 20);
  expect_screen(tmux, "details_small");
  tmux.press({"NPage"});
  expect_screen(tmux, "details_scrolled");
  tmux.press({"Escape"});
  EXPECT_THAT(tmux.wait_for("wörker-2"), HasSubstr("wörker-2"));
}

TEST_F(LiveReplay, SearchesAndFilters) {
  Tmux tmux(replay());
  to_begin(tmux);
  tmux.press({"f"});
  tmux.type("GRAND");
  expect_screen(tmux, "filter_typed");
  tmux.press({"Enter"});
  expect_screen(tmux, "filter");
  tmux.press({"t"});
  expect_screen(tmux, "filter_flat");
  tmux.press({"f", "Escape", "f", "BSpace", "BSpace", "BSpace", "BSpace", "BSpace"});
  tmux.type("no such");
  tmux.press({"Enter"});
  expect_screen(tmux, "filter_nothing");
  tmux.press({"f", "C-h", "C-h", "C-h", "C-h", "C-h", "C-h", "C-h", "Enter"});
  tmux.press({"/"});
  tmux.type("wörk");
  expect_screen(tmux, "search");
  tmux.press({"Enter", "/"});
  tmux.type("worker");
  tmux.press({"Enter", "n"});
  expect_screen(tmux, "search_next");
  tmux.press({"N"});
  expect_screen(tmux, "search_before");
}

TEST_F(LiveReplay, CollapsesSortsAndChoosesColumns) {
  Tmux tmux(replay());
  to_begin(tmux);
  tmux.press({"j", "j", "x"});
  expect_screen(tmux, "collapsed");
  tmux.press({"x", "t", "r"});
  expect_screen(tmux, "flat_reversed");
  tmux.press({">", ">", ">", ">", ">", ">", ">"});
  expect_screen(tmux, "sorted_by_name");
  tmux.press({"<", "<", "<", "<", "<", "<", "<", "<", "r"});
  expect_screen(tmux, "sorted_by_pid");
  tmux.press({"o", "Down", "Space", "Down", "Down", "j", "j", "k", "Space", "Down", "Down", "Space",
              "Down", "Space"});
  expect_screen(tmux, "columns");
  tmux.press({"Down", "Space", "Down", "Down", "Space", "Escape"});
  expect_screen(tmux, "columns_chosen");
}

TEST_F(LiveReplay, SortsByEveryColumnBothWays) {
  Tmux tmux(replay(), {132, 12});
  to_begin(tmux);
  tmux.press({"Right", "t", "o", "Down", "Down", "Down", "Down", "Down", "Down"});
  tmux.press(
      {"Space", "Down", "Space", "Down", "Space", "Down", "Space", "Down", "Space", "Escape"});
  tmux.press({"<"});
  for (const std::string column : {"pid", "copied", "rate", "at_fork", "shared", "curve", "reused",
                                   "zero", "time", "rss", "pss", "command"}) {
    expect_screen(tmux, "sort_" + column);
    tmux.press({"r"});
    expect_screen(tmux, "sort_" + column + "_reversed");
    tmux.press({"r", ">"});
  }
}

TEST_F(LiveReplay, OneWhoEndsIsFoldedAwayAndTheSelectionGoesOn) {
  Tmux tmux(replay());
  to_begin(tmux);
  tmux.press({"/"});
  tmux.type("worker-3");
  tmux.press({"Enter", "Right", "Right"});
  expect_screen(tmux, "ended");
  tmux.press({"Right"});
  expect_screen(tmux, "ended_folded");
  tmux.press({"a"});
  expect_screen(tmux, "ended_shown");
}

TEST_F(LiveReplay, TheMouseSelectsSortsAndScrolls) {
  Tmux tmux(replay());
  to_begin(tmux);
  // As xterm sends them: button, column and row, from 33 on; and that the button is up again.
  const auto click = [&](char button, int column, int row) {
    const std::string where = {static_cast<char>(33 + column), static_cast<char>(33 + row)};
    tmux.type(std::string("\x1b[M") + button + where + "\x1b[M#" + where);
  };
  click(' ', 30, 6);
  expect_screen(tmux, "clicked_row");
  click(' ', 5, 3);
  expect_screen(tmux, "clicked_heading");
  click('a', 5, 5);
  expect_screen(tmux, "wheel");
}

TEST_F(LiveReplay, NeitherAButtonsReleaseNorHalfAKeyHoldsItUp) {
  Tmux tmux(replay());
  to_begin(tmux);
  tmux.type("\x1b[M ?'");
  expect_screen(tmux, "clicked_row");
  tmux.type("\x1b[M#?'");
  tmux.type("\x1b[M\x22?'");  // another button
  tmux.type("\x1b[M");
  tmux.press({"C-c"});
  EXPECT_THAT(tmux.wait_for("as before"), HasSubstr("as before"));
}

TEST_F(LiveReplay, HelpTellsAllKeys) {
  Tmux tmux(replay(), {100, 45});
  to_begin(tmux);
  tmux.press({"h"});
  expect_screen(tmux, "help");
  tmux.resize(80, 12);
  // Keys that are pressed before it is drawn anew may be read before its size is.
  tmux.wait_until([](const std::string& screen) {
    return screen.starts_with("replay") && screen.find("q quit") != std::string::npos;
  });
  tmux.press({"Down", "PPage", "NPage", "NPage", "NPage", "NPage", "NPage", "NPage"});
  expect_screen(tmux, "help_small");
  tmux.press({"?"});
  EXPECT_THAT(tmux.wait_for("worker-1"), HasSubstr("worker-1"));
}

TEST_F(LiveReplay, EverySize) {
  Tmux tmux(replay());
  to_begin(tmux);
  expect_screen(tmux, "first");
  tmux.resize(40, 10);
  expect_screen(tmux, "40x10");
  tmux.press({"Enter"});
  expect_screen(tmux, "40x10_details");
  tmux.resize(20, 5);
  expect_screen(tmux, "20x5");
  tmux.resize(2, 2);
  tmux.resize(80, 24);
  tmux.press({"Escape"});
  expect_screen(tmux, "first");
}

TEST_F(LiveReplay, WithoutUnicode) {
  Tmux tmux(replay(), {80, 24, "LC_ALL=C"});
  to_begin(tmux);
  expect_screen(tmux, "first_ascii");
}

TEST_F(LiveReplay, ColoursAreLeftOut) {
  constexpr const char* kColour = "\x1b[36m";
  constexpr const char* kBoldColour = "\x1b[1m\x1b[36m";
  const auto has_colour = [&](const std::string& environment) {
    Tmux tmux(replay(), {80, 24, "LC_ALL=C.UTF-8 " + environment});
    tmux.wait_for("COMMAND");
    tmux.press({"Space"});
    tmux.wait_for("PAUSED");
    const std::string screen = tmux.screen_with_attributes();
    EXPECT_THAT(screen, HasSubstr("\x1b[")) << "headings and the selected row stand out";
    return screen.find(kColour) != std::string::npos ||
           screen.find(kBoldColour) != std::string::npos;
  };
  EXPECT_TRUE(has_colour("TERM=screen"));
  EXPECT_TRUE(has_colour("NO_COLOR="));
  EXPECT_FALSE(has_colour("NO_COLOR=1"));
  EXPECT_FALSE(has_colour("TERM=vt100"));
}

TEST_F(LiveReplay, WithoutATerminalItSaysSo) {
  const test::Finished finished = test::run({COWTOP, "replay", path_});
  EXPECT_EQ(finished.exit_status(), 125);
  EXPECT_EQ(finished.err,
            "cowtop: replay needs a terminal; cowtop report " + path_ + " prints what it has\n");
  for (const char* term : {"TERM=dumb", "TERM=", "TERM=no-such-terminal"}) {
    Tmux tmux(replay(), {80, 24, term});
    EXPECT_THAT(tmux.wait_for("status "), HasSubstr("status 125, as before")) << term;
  }
}

TEST_F(LiveReplay, WhatIsNoRecordingIsSaidWhenTheViewIsGone) {
  write_file(path_, "no recording");
  Tmux tmux(replay());
  EXPECT_THAT(tmux.wait_for("status "), HasSubstr("is no recording of cowtop's"));
  EXPECT_THAT(tmux.wait_for("status "), HasSubstr("status 125, as before"));
}

TEST_F(LiveReplay, APipeIsNotWaitedFor) {
  const std::string pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  Tmux tmux(std::string(COWTOP) + " replay " + pipe);
  EXPECT_THAT(tmux.wait_for("status 125, as before"),
              HasSubstr("is a pipe, and replay reads more"));
}

TEST_F(LiveReplay, ARecordingThatWasCutOffSaysSo) {
  const std::string all = contents_of(path_);
  write_file(path_, all.substr(0, all.size() - 5));
  Tmux tmux(replay());
  to_begin(tmux);
  tmux.press({"End"});
  EXPECT_THAT(tmux.wait_for("at 21.0 s of 21.0 s"), HasSubstr("run.cowtop ")) << "why";
}

TEST_F(LiveReplay, AnotherRecordingThatFollowsIsSaid) {
  write_file(path_, contents_of(path_) + contents_of(path_));
  Tmux tmux(replay());
  to_begin(tmux);
  EXPECT_THAT(tmux.wait_for("is followed by"), HasSubstr("run.cowtop is followed by another "));
}

TEST_F(LiveReplay, AnEmptyTable) {
  record_workers(path_, 0);
  Tmux tmux(replay());
  to_begin(tmux);
  tmux.press({"j", "k", "G", "g", "Enter", "Escape", "/"});
  tmux.type("x");
  tmux.press({"Enter", "n", "x", "t", ">", "r"});
  expect_screen(tmux, "empty");
}

TEST_F(LiveReplay, TwoThousandProcesses) {
  record_workers(path_, 2000);
  Tmux tmux(replay());
  to_begin(tmux);
  tmux.press({"G"});
  expect_screen(tmux, "2000_bottom");
  tmux.press({"g", "NPage", "NPage", "PPage"});
  expect_screen(tmux, "2000_page");
  tmux.press({"/"});
  tmux.type("worker-777");
  tmux.press({"Enter"});
  expect_screen(tmux, "2000_search");
}

}  // namespace
}  // namespace cowshed::cowtop
