#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/collapse.h>
#include <cowshed/base/error.h>

namespace cowshed::cowtop {

// What cowtop collapse did to one process in one round.
struct CollapsedProcess {
  pid_t pid = 0;
  std::string name;
  Collapsed collapsed;
};

// Returns some lines, each with its newline.
std::string collapse_text(const CollapsedProcess& process);

// Returns one line: a JSON object (schema cowshed.collapse/1).
std::string collapse_json(const std::vector<CollapsedProcess>& processes,
                          const std::vector<Error>& refused);

}  // namespace cowshed::cowtop
