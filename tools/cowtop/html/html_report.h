#pragma once

#include <string>
#include <string_view>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/html/curves.h>
#include <cowshed/tools/cowtop/recording/recording.h>
#include <cowshed/tools/cowtop/report/comparison_report.h>

namespace cowshed::cowtop {

// Returns the page (page/page.html with its scripts) with `json` as its data.  The page fetches
// nothing, and runs no code from the data.
std::string html_page(std::string_view json);

// Returns a page that shows a recording.  It begins with text_report().  `note` says what is wrong
// with the recording, or is empty.  With many processes or stacks, the page has details of those
// with the most copies; its sums include all.
std::string html_report(cow::Measurement measurement, const RecordingHeader& header,
                        const Curves& curves, const std::string& note);

// Returns the page of a recording without an interval.
std::string html_begun(const RecordingHeader& header, const std::string& note);

// Returns the page of a comparison.
std::string html_comparison(const Comparison& comparison, const ComparedNames& names);

}  // namespace cowshed::cowtop
