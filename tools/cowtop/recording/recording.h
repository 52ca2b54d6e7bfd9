#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/io/input_file.h>
#include <cowshed/tools/cowtop/io/zstd_lines.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>

namespace cowshed::cowtop {

// The first line of a recording.  A recording is a file of JSON lines (zstd_lines.h) with the
// states of a measurement from its beginning to its end:
//   {"schema": "cowshed.recording/1", "cowtop": ..., "command": [...], ...}      RecordingHeader
//   {"patch": [...]}                    once an interval: what has changed, as JSON Patch (RFC
//   6902)
//   {"patch": [...], "ended": true, "exit_status": 0}                                     the last
// The patched document begins as {"processes": []}.  It is cowshed.run/2 without computed fields.
// A process that is merged into a sum (cow/backends/process_rollup.h) is removed.  The operations
// are add, replace and remove.
struct RecordingHeader {
  std::string cowtop;                        // version of the writer
  std::vector<std::string> command;          // empty: attached processes
  std::optional<std::int64_t> attached_pid;  // if it was exactly one
  std::string selection;                     // "-p 1,2"; empty: a command, or an older recording
  std::string kernel;
  std::uint64_t cpus = 0;
  double started_s = 0;  // since 1970
};

Json to_json(const RecordingHeader& header);

// Reads a recording.  Move-only.  Not thread-safe.
class Recording {
 public:
  // Errors: those of InputFile; bad_recording if it is no recording, or of another version.
  static Expected<Recording> open(const std::string& path);
  static Expected<Recording> open(InputFile file);

  const RecordingHeader& header() const { return header_; }

  // Reads the next interval.  False: there is no readable one.  Errors: those of InputFile.
  Expected<bool> next();

  // Returns the document of the interval.  Its fields are not checked.
  const Json& document() const { return state_; }

  // Returns its measurement.  Errors: bad_recording.
  Expected<cow::Measurement> measurement() const;
  // Whether the document contains only a part of an interval; problem() says why.
  bool is_torn() const { return is_torn_; }

  // Whether the recording has an end.  Without one, cowtop was killed or still runs, or problem()
  // says what is wrong, in words that continue the file's name.  Data after the end is a problem.
  bool ended() const { return ended_; }
  const std::string& problem() const { return problem_; }
  // After the last next(): whether it has an end and no problem; else why_not_whole() says why.
  bool is_whole() const { return ended_ && problem_.empty(); }
  std::string why_not_whole() const;
  std::optional<int> exit_status() const { return exit_status_; }  // as in Measured

 private:
  explicit Recording(ZstdLineReader lines) : lines_(std::move(lines)) {}
  void patch(Json operations);
  Expected<bool> look_behind_the_end();

  ZstdLineReader lines_;
  RecordingHeader header_;
  Json state_ = {{"processes", Json::array()}};
  std::size_t weight_ = 0;  // upper limit of its memory
  bool is_torn_ = false;
  bool ended_ = false;
  std::optional<int> exit_status_;
  std::string problem_;
};

// Reads all intervals and returns the last measurement.  Calls `at_each` with the document of each
// interval.  `path` is for messages.  Errors: those of InputFile; bad_recording.
Expected<cow::Measurement> last_measurement(
    Recording& recording, const std::string& path,
    const std::function<void(const Json&)>& at_each = [](const Json&) {});

}  // namespace cowshed::cowtop
