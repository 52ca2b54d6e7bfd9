#include <array>
#include <fmt/format.h>
#include <poll.h>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/live/drawing.h>
#include <cowshed/tools/cowtop/live/live_view.h>
#include <cowshed/tools/cowtop/live/panes.h>
#include <cowshed/tools/cowtop/measure/signals.h>

namespace cowshed::cowtop::live {
namespace {

constexpr auto kInterval = std::chrono::seconds(1);
constexpr std::size_t kMostOutput = 65536;

}  // namespace

std::optional<double> OwnCpu::share() {
  const std::uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  const std::uint64_t wall = monotonic_ns();
  const std::uint64_t used = cpu - std::exchange(cpu_ns_, cpu);
  const std::uint64_t before = std::exchange(wall_ns_, wall);
  if (before == 0 || wall <= before) return std::nullopt;
  return static_cast<double>(used) / static_cast<double>(wall - before);
}

Expected<std::unique_ptr<LiveView>> LiveView::open(const MeasureOptions& options) {
  TRY(auto terminal, Terminal::open());
  TRY(auto streams, StandardStreams::take());
  return std::unique_ptr<LiveView>(new LiveView(options, std::move(terminal), std::move(streams)));
}

LiveView::LiveView(const MeasureOptions& options, std::unique_ptr<Terminal> terminal,
                   StandardStreams streams)
    : streams_(std::move(streams)),
      terminal_(std::move(terminal)),
      has_command_(!options.selection) {
  state_.source().message = "getting ready to measure";
  own_cpu_.share();
  draw();
}

void LiveView::draw() {
  if (state_.pane() == Pane::output) state_.source().output = streams_.last(kMostOutput);
  state_.resize(terminal_->size());
  terminal_->clear();
  live::draw(state_, *terminal_);
  terminal_->show();
}

void LiveView::sampled(const cow::Backend& backend) {
  if (!terminal_) {
    streams_.print_new();
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  // A view that is paused from the beginning still shows the first measurement.
  if ((state_.is_paused() && !state_.is_loading()) || now < next_) {
    if (lacks_code()) {
      state_.use_code(backend.measurement(code_to_show()));
      draw();
    }
    return;
  }
  next_ = now + kInterval;
  if (state_.is_loading()) state_.source().message.clear();
  state_.source().own_cpu = own_cpu_.share();
  state_.resize(terminal_->size());
  state_.update(backend.measurement(code_to_show()));
  const MemoryReader::Wanted wanted{state_.needs(Column::rss), state_.needs(Column::pss)};
  if (wanted.rss || wanted.pss)
    state_.use_memory(memory_.read(state_.running(), state_.running_on_screen(), wanted));
  draw();
}

int LiveView::fd() const { return terminal_ ? terminal_->fd() : -1; }

const cow::CodeOf& LiveView::code_to_show() {
  const cow::ProcessCopies* process = state_.selected_process();
  if (state_.is_paused() || state_.pane() == Pane::report) shown_code_ = cow::CodeOf::all();
  else if (state_.pane() == Pane::details && process != nullptr)
    shown_code_ = cow::CodeOf::process(process->id());
  else shown_code_ = cow::CodeOf::none();
  return shown_code_;
}

bool LiveView::lacks_code() const {
  if (!state_.model().measurement.sampling || shown_code_.is_all()) return false;
  const cow::ProcessCopies* process = state_.selected_process();
  return state_.is_paused() || state_.pane() == Pane::report ||
         (state_.pane() == Pane::details && process != nullptr && !shown_code_.includes(*process));
}

bool LiveView::press_keys() {
  while (const auto key = terminal_->next_key()) {
    const auto request = state_.press(*key, pane_height(state_));
    if (request == State::Request::quit) return false;
    if (request == State::Request::toggle_pause) {
      state_.set_paused(!state_.is_paused());
      next_ = {};
    }
  }
  if (terminal_->is_gone()) return false;
  draw();
  return true;
}

bool LiveView::readable() {
  if (press_keys()) return true;
  close();
  return has_command_;  // it runs on, and so does the measurement
}

void LiveView::asked_to_end() { is_asked_to_end_ = true; }

void LiveView::close() {
  terminal_.reset();
  streams_.give_back();
  streams_.print_new();
}

void LiveView::end(const Measured& measured) {
  auto signals = EndSignals::open();
  if (terminal_ && signals && measured.measurement && !is_asked_to_end_) {
    state_.set_paused(false);
    state_.resize(terminal_->size());
    state_.update(*measured.measurement);
    state_.source().message =
        has_command_ ? fmt::format(
                           "the command has ended, exit status {}: q ends the view and prints the "
                           "report",
                           measured.exit_status)
        : measured.exit_status != 0
            ? "the measurement is incomplete: q ends the view, which says why, and prints the "
              "report"
            : "all processes have ended: q ends the view and prints the report";
    draw();
    std::array<pollfd, 2> events{{{terminal_->fd(), POLLIN, 0}, {signals->fd(), POLLIN, 0}}};
    do {
      ::poll(events.data(), events.size(), -1);
    } while (!signals->next() && press_keys());
  }
  close();
}

}  // namespace cowshed::cowtop::live
