#pragma once

#include <string>
#include <string_view>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/html/curves.h>
#include <cowshed/tools/cowtop/recording/recording.h>
#include <cowshed/tools/cowtop/report/comparison_report.h>

namespace cowshed::cowtop {

// The page (page.html and what it is made of, in this folder) with `json` as its data, for its
// scripts to show.  It fetches nothing, and runs nothing that the data might hold.
std::string html_page(std::string_view json);

// A page that shows a recording in a browser, by itself.  `note`: what is wrong with the recording,
// in a sentence; empty where nothing is.  Where there are many processes or stacks the page has the
// details of those that copied most, and all in its sums.
std::string html_report(cow::Measurement measurement, const RecordingHeader& header,
                        const Curves& curves, const std::string& note);

// The same of a recording in which nothing is yet.
std::string html_begun(const RecordingHeader& header, const std::string& note);

// The same of a comparison.
std::string html_comparison(const Comparison& comparison, const ComparedNames& names);

}  // namespace cowshed::cowtop
