#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace cowshed::cow {

// What a program says of code that it generated, in the format of perf's /tmp/perf-PID.map: lines
// of "START SIZE NAME" in hexadecimal.  Python writes one with -X perf (3.12 and newer), Node.js
// with --perf-basic-prof, Java by an agent.
class PerfMap {
 public:
  // Of the file's first 64 MiB.  Empty where they cannot be read.
  static PerfMap read(int fd);
  // Lines that are none are left out; of code at the same place the last.
  // Names are cut off at 1 KiB.
  static PerfMap parse(std::string_view text);

  // Empty: not known.
  std::string function(std::uint64_t address) const;

 private:
  struct Code {
    std::uint64_t bytes = 0;
    std::string name;
  };
  std::map<std::uint64_t, Code> code_;  // by start
};

}  // namespace cowshed::cow
