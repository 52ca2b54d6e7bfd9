#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/live/model/memory_reader.h>
#include <cowshed/tools/cowtop/live/state.h>
#include <cowshed/tools/cowtop/live/terminal/standard_streams.h>
#include <cowshed/tools/cowtop/live/terminal/terminal.h>
#include <cowshed/tools/cowtop/measure/measure.h>

namespace cowshed::cowtop::live {

// The CPU time of this process.
class OwnCpu {
 public:
  // Returns the share of a CPU since the last call; nullopt at first.
  std::optional<double> share();

 private:
  std::uint64_t cpu_ns_ = 0;
  std::uint64_t wall_ns_ = 0;
};

// Shows a measurement while it runs.
class LiveView : public Observer {
 public:
  // Takes the terminal and the standard streams (standard_streams.h), and draws the first screen.
  static Expected<std::unique_ptr<LiveView>> open(const MeasureOptions& options);

  void sampled(const cow::Backend& backend) override;
  int fd() const override;
  bool readable() override;
  void asked_to_end() override;

  // Call it after measure().  Shows the end until a key is pressed, unless a key or Ctrl-C has
  // ended the view before.  Then it restores the terminal and the streams, and prints captured
  // output.
  void end(const Measured& measured);

 private:
  LiveView(const MeasureOptions& options, std::unique_ptr<Terminal> terminal,
           StandardStreams streams);
  bool press_keys();  // false: end the view
  // The process whose sampled code is shown: names for all would take longer than the rest.
  const cow::CodeOf& code_to_show();
  // Whether the screen needs more sampled code than the measurement has.
  bool lacks_code() const;
  void draw();
  void close();

  State state_;
  StandardStreams streams_;
  std::unique_ptr<Terminal> terminal_;  // null: the view has ended
  MemoryReader memory_;
  OwnCpu own_cpu_;
  bool has_command_;
  bool is_asked_to_end_ = false;
  cow::CodeOf shown_code_ = cow::CodeOf::none();
  std::chrono::steady_clock::time_point next_{};
};

}  // namespace cowshed::cowtop::live
