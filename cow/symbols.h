#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include <cowshed/cow/sampled_copies.h>
#include <cowshed/cow/stack_unwinder.h>

namespace cowshed::cow {

// Names of code, from the debug information of a binary (its own, or that which Debian's -dbgsym
// packages and build ids lead to), else its symbol table; or from a perf map.  Generated code that
// none names is all one function, "generated code".  Each address is looked up once.  Opens a
// binary's debug information when it is first asked about it: after the measurement, not meanwhile.
// One thread at a time.
class Symbols {
 public:
  Symbols();
  Symbols(const Symbols&) = delete;
  Symbols& operator=(const Symbols&) = delete;
  ~Symbols();

  // The function at `code` and those that it is inlined into, innermost first; at least one, that
  // has a module and an address where nothing else is known.
  const std::vector<Frame>& frames(const CodeAddress& code);

 private:
  class Source;
  class ElfSource;
  class GeneratedSource;

  std::map<const Binary*, std::unique_ptr<Source>> sources_;
  std::map<CodeAddress, std::vector<Frame>> known_;
};

}  // namespace cowshed::cow
