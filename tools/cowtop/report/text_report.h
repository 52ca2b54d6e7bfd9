#pragma once

#include <string>

#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

// What the report for people has more than fits on a screen.
struct TextForm {
  bool each_process = false;  // --all: a row for each process, not for those alike
  bool wide = false;          // --wide: every count of every process (table_report.h)
};

// The report for people.  By default it fits on a screen of 80 columns and 24 lines: the verdict,
// the processes that copied most, what they copied, why, and what to do.  Plain text without
// colour.  "-" is a figure that is not known.
std::string text_report(const cow::Measurement& measurement, TextForm form = {});

// Its lines of what to do, for one process.
std::string advice_on(const cow::Measurement& measurement, const cow::ProcessCopies& process);

}  // namespace cowshed::cowtop
