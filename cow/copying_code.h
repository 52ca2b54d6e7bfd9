#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc_files.h>
#include <cowshed/cow/sampled_copies.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// What a FaultSampler has of the pages that a Meter found copied, for whoever asks which code that
// was: unwinding and names are for then.  Immutable, so free to cross threads; the process may be
// gone.
struct CopyingCode {
  pid_t pid = 0;
  std::vector<Mapping> mappings;
  std::vector<CopySample> faults;  // the last one of each page that had one, by address
  bool sees_kernel = false;

  // Places in the program by the pages, of `pages`, that they wrote to; most first.  Of each
  // samples and estimated_copies are these pages.
  std::vector<CodeSite> sites(const PageRanges& pages) const;
};

// "fill(char*) at page.cc:42, called from main at page.cc:50".
std::string to_text(const CodeSite& site);

}  // namespace cowshed::cow
