#pragma once

#include <string>

#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

// Returns a profile for `go tool pprof`, Pyroscope and speedscope: a Profile of profile.proto,
// compressed by gzip.  `started_s`: since 1970; 0: not known.
//
// Its values are bytes and pages, copied and new: COPIED and NEW, as cow::ForkCopies defines them.
// The copies of each process add up to its exact COPIED; stacks, causes and objects are estimated
// from samples.  What no sample explains is "[not sampled]", and copies of a process that then
// executed a program are "[copied before exec]".  Stacks of new memory are of all processes
// together.
std::string pprof_report(const cow::Measurement& measurement, double started_s);

}  // namespace cowshed::cowtop
