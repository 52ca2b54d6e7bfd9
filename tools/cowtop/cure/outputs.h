#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cowshed::cowtop {

// What a command that ended left to see.
struct Outcome {
  int status = 0;  // complain.h
  std::string output;
  std::string error;
};

// How a run compares with the runs of the command as it is, from the best on.
enum class Likeness : std::uint8_t {
  same,
  reordered,  // these lines, in an order that the command as it is never had
  numbers,    // these lines, with other numbers
  unstable,   // the runs of the command as it is differ among themselves
  differs
};

// Numbers that vary among the runs of the command as it is (a time, a PID) are not compared, nor
// then the order of lines.
Likeness likeness(const std::vector<Outcome>& as_it_is, const Outcome& other);

// The first line that the two runs do not have in common; nullopt: that side has no such line.
struct Difference {
  const char* stream = "output";  // or "error"
  std::optional<std::string> as_it_is;
  std::optional<std::string> cured;
};

// The difference from the first run of the command as it is, without what varies among these.
std::optional<Difference> first_difference(const std::vector<Outcome>& as_it_is,
                                           const Outcome& other);

}  // namespace cowshed::cowtop
