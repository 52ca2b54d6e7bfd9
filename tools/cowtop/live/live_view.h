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

// The share of a CPU that this process has used since it was last asked.
class OwnCpu {
 public:
  std::optional<double> share();

 private:
  std::uint64_t cpu_ns_ = 0;
  std::uint64_t wall_ns_ = 0;
};

// The view of a measurement while it runs.
class LiveView : public Observer {
 public:
  // Takes the terminal, and the standard streams (standard_streams.h), and draws a first screen.
  static Expected<std::unique_ptr<LiveView>> open(const MeasureOptions& options);

  void sampled(const cow::Backend& backend) override;
  int fd() const override;
  bool readable() override;
  void asked_to_end() override;

  // After measure(): shows the end until a key ends the view, unless one or Ctrl-C already has.
  // The terminal and the streams are then as they were, and what was written meanwhile is printed.
  void end(const Measured& measured);

 private:
  LiveView(const MeasureOptions& options, std::unique_ptr<Terminal> terminal,
           StandardStreams streams);
  bool press_keys();  // false: the view is to end
  // The sampled code of a thousand processes takes longer than the rest, and is shown of one.
  const cow::CodeOf& code_to_show();
  // Whether the screen, or whoever looks around in a paused view, wants more of it than there is.
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
