#pragma once

#include <string>
#include <vector>

namespace cowshed::cowtop {

// What a command that ended left to see.
struct Outcome {
  int status = 0;  // complain.h
  std::string output;
  std::string error;
};

enum class Likeness { same, differs, unknown };

// Whether a run was like those of the command as it is.  Numbers that differ among these (a time, a
// PID) are not compared.  unknown: these have too little in common.  `has_order`: one process wrote
// all; of several, the order of lines is chance.
Likeness likeness(const std::vector<Outcome>& as_it_is, const Outcome& other, bool has_order);

}  // namespace cowshed::cowtop
