#pragma once

#include <string>

#include "report.h"
#include "subject.h"

// What every benchmark's command line has in common.
namespace cowshed::bench {

struct Options {
  bool quick = false;  // tiny sizes: that it runs, not how fast
  int pairs = 0;
  std::string only;  // groups whose name contains this

  bool wants(const std::string& group) const {
    const bool is_wanted = group.find(only) != std::string::npos;
    (is_wanted ? wanted : left_out) += 1;
    return is_wanted;
  }
  mutable int wanted = 0;  // groups
  mutable int left_out = 0;
};

struct Program {
  const char* name;
  const char* question;  // that it answers, for --help and the report
  int pairs;             // unless --pairs or --quick
  void (*measure)(const Options& options, Report& report);
  MakeWork make_work = nullptr;  // when started again as a subject, if it is
};

// main(): the exit code, 0 also where a goal is missed.
int run_program(int argc, char** argv, const Program& program);

// main() of a program that another benchmark starts as its subject, and nobody else.
int run_subject_program(int argc, char** argv, MakeWork make_work);

}  // namespace cowshed::bench
