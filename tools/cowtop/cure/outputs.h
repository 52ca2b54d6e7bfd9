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

// reordered: these lines, in an order that the command as it is never had.
enum class Likeness { same, reordered, unknown, differs };

// Whether a run was like those of the command as it is.  Numbers that differ among these (a time, a
// PID) are not compared, nor then the order of lines.  unknown: these have too little in common.
Likeness likeness(const std::vector<Outcome>& as_it_is, const Outcome& other);

}  // namespace cowshed::cowtop
