#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <vector>

#include <cowshed/cow/copy_profile.h>
#include <cowshed/cow/symbolize/stack_unwinder.h>

namespace cowshed::cow {

// Returns names of code from the debug information of a binary (its own or of Debian's -dbgsym
// packages, by build ID), else from its symbol table, or from a perf map.  Other generated code is
// one function, "generated code".  It looks up each address once.  One thread at a time.
class Symbolizer {
 public:
  // Returns the function at `code` and the functions that it is inlined into, innermost first.
  // There is at least one, with a module and an address if nothing else is known.  Keeps the debug
  // information open for the next address.
  const std::vector<Frame>& frames(const CodeAddress& code);

  // Returns these frames as a shared vector: equal frames share one.
  Frames shared(std::vector<Frame> frames);

  // Looks up all these addresses at once, so that frames() is fast.  Debug information may take
  // tens of MB, so only one binary's is open at a time, and none afterwards.
  void look_up(std::set<CodeAddress> addresses);

 private:
  void add(const CodeAddress& code);

  std::map<CodeAddress, std::vector<Frame>> known_;
  std::set<Frames> shared_;
  std::size_t most_shared_ = 0;  // beyond it, unused frames are forgotten
};

}  // namespace cowshed::cow
