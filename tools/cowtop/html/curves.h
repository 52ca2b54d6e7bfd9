#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>

namespace cowshed::cowtop {

// What each process copied, and what it still shares, over time.  It keeps as many moments as a
// chart can show, however long the recording is.
class Curves {
 public:
  // Adds the recording's document of the next interval (recording.h).
  void add(const Json& document);

  // Returns {"at_s": [...], "total": [...], "still_shared": [...],
  // "of": [{"process": 3, "begin": 1, "copied": [...], "still_shared": [...]}]}.  "total" has the
  // copied pages of all at each moment, "still_shared" their STILL SHARED; null: unknown.  "of" has
  // those of each of `processes`, from the moment number "begin" to the last change.  `end` is the
  // measurement after the last document.
  Json json(const cow::Measurement& end, const std::vector<std::size_t>& processes) const;

 private:
  using Pages = std::optional<std::uint64_t>;
  // The flag tells a sum of processes from its first process.
  using Id = std::pair<cow::ProcessId, bool>;
  struct Copied {
    Id process;
    Pages pages;
    std::optional<double> still_shared;
  };
  struct Moment {
    double at_s = 0;
    Pages total;
    std::optional<double> still_shared;
    std::vector<Copied> copied;  // in order of Id
    const Copied* find(const Id& process) const;
  };
  static Id id_of(const cow::ProcessCopies& process);
  static Moment moment_of(const cow::Measurement& measurement);
  static Json curve(const std::vector<Moment>& moments, const Id& process);

  std::vector<Moment> moments_;
  std::uint64_t added_ = 0;
  std::uint64_t stride_ = 1;  // keeps one document in this many
};

}  // namespace cowshed::cowtop
