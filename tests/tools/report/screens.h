#pragma once

#include <deque>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/report/text_report.h>

// Each case of tests/tools/report/screens/*.txt is a test: a measurement, and the whole report on
// it, which must fit on a screen.  This command writes the reports as they are now into the files:
//   UPDATE_SCREENS=1 build/check/tests/tools/cowtop_test --gtest_filter='Report*'
//
//   [NAME] [like OTHER] [--all | --wide]  begins a case.  `like`: it begins with OTHER's
//   measurement COMMAND KEY=VALUE...    adds a process.  The first is the root, PID 1; others are
//   its children
//   @PID KEY=VALUE...       changes a process; @* changes all
//   all KEY=VALUE...        changes the measurement
//   code SIZE FRAMES, mapping SIZE NAME, type SIZE NAME, failed ADDRESS REASON: FRAMES
//                           adds a sample; on an indented line, to the process above.  `handled`
//                           is a failed access that the program handled
//   new SIZE[/MOST] CAUSE[ by LIBRARY], new-code SIZE FRAMES   adds a sample of new memory
//   N x LINE                repeats such a line, with 0, 1, ... for {}
//   | TEXT                  is a line of the report
//   =N TEXT, +N TEXT, -N    stand in place of the report if they are fewer lines.  Line N of
//   OTHER's
//                           report changes to TEXT, is followed by TEXT, or is gone
// KEY is a field of `cowtop --json`, such as memory.shared_bytes, or a short name of set_fields().
// VALUE may be in MiB (76M) or seconds (2s); "-" is not known.  A frame is FUNCTION @FILE:LINE
// (MODULE) inlined.  " < " stands before its caller, and "*" before the frame that CODE names.
namespace cowshed::cowtop {

using Lines = std::vector<std::string>;

struct ScreenCase {
  std::string name;
  TextForm form;
  std::string like;
  Lines input;
  std::string text;    // as written, up to the screen
  std::string screen;  // as written
};

Lines lines_in(const std::string& text);

// By file.  The first of each has the comment that the file begins with, and no name.
const std::map<std::filesystem::path, std::deque<ScreenCase>>& all_screens();
const ScreenCase& screen_named(const std::string& name);

cow::Measurement measurement_of(const ScreenCase& which);

}  // namespace cowshed::cowtop
