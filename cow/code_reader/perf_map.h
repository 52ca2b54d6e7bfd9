#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace cowshed::cow {

// The names of code that a program generated, in the format of perf's /tmp/perf-PID.map: lines of
// "START SIZE NAME" in hexadecimal.  Python writes it with -X perf (3.12 and newer), Node.js with
// --perf-basic-prof, Java with an agent.
class PerfMap {
 public:
  // Reads the first 64 MiB of the file; empty: it cannot be read.
  static PerfMap read(int fd);
  // Skips other lines.  The last of several lines for one address counts.  Cuts names at 1 KiB.
  static PerfMap parse(std::string_view text);

  // Returns the function at an address; empty: unknown.
  std::string function(std::uint64_t address) const;

 private:
  struct Code {
    std::uint64_t bytes = 0;
    std::string name;
  };
  std::map<std::uint64_t, Code> code_;  // by start
};

}  // namespace cowshed::cow
