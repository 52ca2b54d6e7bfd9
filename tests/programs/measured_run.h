#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <sys/types.h>
#include <vector>

// What cowtop says of a program, and the questions that the tests have about that.
namespace cowshed::test {

using Json = nlohmann::json;

struct MeasuredRun {
  Json report;                                 // cowtop's
  std::map<pid_t, std::uint64_t> independent;  // copies, by taskstats, of each process

  const Json& process(pid_t pid) const;
  pid_t child() const;  // the last that the command itself forked
  double copies(pid_t pid) const;
};

// Each process of the run, by cowtop and by the kernel.
void expect_agreement(const MeasuredRun& run);

double share(const Json& process, const std::string& pattern);
// But for what chance does to the share of a process's samples.
void expect_share(const Json& process, const std::string& pattern, double least, double most);
// The code site has copied about what the kernel counted.
void expect_copies(const Json& site, const Json& process, double least, double most);

// Whether the function is on the site's stack.
bool calls(const Json& site, const std::string& function);
// Those with most copies, first.  Of a code site "function (module)", of its place or, where that
// has no name, the nearest caller's that has one; "?? (module)" where none has.
std::vector<std::string> places(const Json& process, std::size_t most);
std::vector<std::string> mappings(const Json& process, std::size_t most = SIZE_MAX);
std::vector<std::string> patterns(const Json& process);

// For who reads the test's output, and for the documentation.
void show(const std::string& name, const MeasuredRun& run, pid_t pid);

}  // namespace cowshed::test
