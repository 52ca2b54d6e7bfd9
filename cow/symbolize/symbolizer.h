#pragma once

// Room cow/symbolize: turns addresses of a process into functions and lines.  May use base, cow,
// cow/proc, cow/sandbox, cow/code_reader, probes.

#include <cstddef>
#include <map>
#include <set>
#include <vector>

#include <cowshed/cow/copy_profile.h>
#include <cowshed/cow/symbolize/stack_unwinder.h>

namespace cowshed::cow {

// Names of code, from the debug information of a binary (its own, or that which Debian's -dbgsym
// packages and build ids lead to), else its symbol table; or from a perf map.  Generated code that
// none names is all one function, "generated code".  Each address is looked up once.  One thread at
// a time.
class Symbolizer {
 public:
  // The function at `code` and those that it is inlined into, innermost first; at least one, that
  // has a module and an address where nothing else is known.
  // Keeps the debug information open for the next address.
  const std::vector<Frame>& frames(const CodeAddress& code);

  // The same frames, shared with whoever has been given the same ones and still has them.
  Frames shared(std::vector<Frame> frames);

  // Makes frames() of these quick, for whoever goes on for long: debug information may take tens of
  // MB, so one binary's is open at a time, and none afterwards.
  void look_up(const std::set<CodeAddress>& addresses);
  // Whether look_up() would help.
  bool needs_look_up(const CodeAddress& code) const;

 private:
  void add(const CodeAddress& code);

  std::map<CodeAddress, std::vector<Frame>> known_;
  std::set<Frames> shared_;
  std::size_t most_shared_ = 0;  // then those that nobody has any more are forgotten
};

}  // namespace cowshed::cow
