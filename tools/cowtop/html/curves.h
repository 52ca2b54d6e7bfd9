#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>

namespace cowshed::cowtop {

// What each process had copied, over time: as much of it as a chart can show, however long the
// recording is.
class Curves {
 public:
  // A recording's document as of its next interval (recording.h).
  void add(const Json& document);

  // {"at_s": [...], "total": [...], "of": [{"process": 3, "begin": 1, "copied": [...]}, ...]}: the
  // whole measurement's copied pages at each of these moments, and those of each of these
  // processes, from the moment of that number on, as long as they changed; null: not known.  `end`,
  // after the last document, is of the same processes.
  Json json(const cow::Measurement& end, const std::vector<std::size_t>& processes) const;

 private:
  using Pages = std::optional<std::uint64_t>;
  // A sum of several is another than its first.
  using Id = std::pair<cow::ProcessId, bool>;
  struct Copied {
    Id process;
    Pages pages;
  };
  struct Moment {
    double at_s = 0;
    Pages total;
    std::vector<Copied> copied;  // in order of Id
    const Copied* find(const Id& process) const;
  };
  static Id id_of(const cow::ProcessCopies& process);
  static Moment moment_of(const cow::Measurement& measurement);
  static Json curve(const std::vector<Moment>& moments, const Id& process);

  std::vector<Moment> moments_;
  std::uint64_t added_ = 0;
  std::uint64_t stride_ = 1;  // one document in so many is kept
};

}  // namespace cowshed::cowtop
