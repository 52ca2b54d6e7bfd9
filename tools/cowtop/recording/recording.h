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

// A file that keeps a measurement from its beginning to its end.  Lines of JSON (zstd_lines.h):
//   {"schema": "cowshed.recording/1", "cowtop": ..., "command": [...], ...}      RecordingHeader
//   {"patch": [...]}                    once an interval: what has changed, as JSON Patch (RFC
//   6902)
//   {"patch": [...], "ended": true, "exit_status": 0}                                     the last
// A process that is summed with others (cow/backends/process_rollup.h) is removed.  The patched
// document begins as {"processes": []} and is cowshed.run/2 without what is computed from other
// fields. Only add, replace and remove are used.
struct RecordingHeader {
  std::string cowtop;                        // version that wrote it
  std::vector<std::string> command;          // empty: it was attached to
  std::optional<std::int64_t> attached_pid;  // where it was one
  std::string selection;                     // "-p 1,2"; empty: a command, or an older recording
  std::string kernel;
  std::uint64_t cpus = 0;
  double started_s = 0;  // since 1970
};

Json to_json(const RecordingHeader& header);

// Reads one.  Not thread-safe.
class Recording {
 public:
  // Errors: those of the file; bad_recording where it is none, or of another version.
  static Expected<Recording> open(const std::string& path);
  static Expected<Recording> open(InputFile file);

  const RecordingHeader& header() const { return header_; }

  // Goes on to the next interval.  False at the end of what can be read; false at first: nothing
  // was recorded.  Errors: those of the file.
  Expected<bool> next();

  // As of that interval, as it was read: its fields may not be what they should be.
  const Json& document() const { return state_; }

  // The same.  Errors: bad_recording.
  Expected<cow::Measurement> measurement() const;
  // That there is none: a part of an interval is in the document, and problem() says why no more.
  bool is_torn() const { return is_torn_; }

  // Whether the recording came to its end; else cowtop was killed, or is still at it, or problem()
  // says what is wrong, in words that follow the file's name.  Where more follows the end, as of
  // another recording, problem() says that.
  bool ended() const { return ended_; }
  const std::string& problem() const { return problem_; }
  // Once next() was false: it ended, and nothing follows; else why_not_whole() says what is wrong.
  bool is_whole() const { return ended_ && problem_.empty(); }
  std::string why_not_whole() const;
  std::optional<int> exit_status() const { return exit_status_; }  // as Measured's

 private:
  explicit Recording(ZstdLineReader lines) : lines_(std::move(lines)) {}
  Json parse(const std::string& line);
  void patch(const Json& operations);
  Expected<bool> look_behind_the_end();

  ZstdLineReader lines_;
  RecordingHeader header_;
  Json state_ = {{"processes", Json::array()}};
  std::size_t weight_ = 0;  // of it, at most
  bool is_torn_ = false;
  bool ended_ = false;
  std::optional<int> exit_status_;
  std::string problem_;
};

// As of the last interval that can be read.  `path` is for the errors' messages.  `at_each` is
// called with the document of each interval.
Expected<cow::Measurement> last_measurement(
    Recording& recording, const std::string& path,
    const std::function<void(const Json&)>& at_each = [](const Json&) {});

}  // namespace cowshed::cowtop
