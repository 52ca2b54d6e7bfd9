#pragma once

#include <optional>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/cow/open_backend.h>
#include <cowshed/tools/cowtop/measure/selection.h>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace cowshed::cowtop {

// Defines the options for the processes to measure and for the backend.  `app` must outlive it.
class SelectionArguments {
 public:
  explicit SelectionArguments(CLI::App& app);
  SelectionArguments(const SelectionArguments&) = delete;
  SelectionArguments& operator=(const SelectionArguments&) = delete;
  ~SelectionArguments() = default;

  // Call both after `app` has parsed.  Errors: invalid_argument.
  Expected<std::optional<Selection>> selection() const;  // nullopt: none
  Expected<cow::BackendChoice> backend() const;

 private:
  std::vector<std::string> pids_;  // "7,8", each
  std::string cgroup_;
  std::string comm_;
  std::string backend_ = "auto";
  CLI::Option* by_pid_;
  CLI::Option* by_cgroup_;
  CLI::Option* by_comm_;
};

}  // namespace cowshed::cowtop
