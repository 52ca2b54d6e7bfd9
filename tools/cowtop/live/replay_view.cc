#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <memory>
#include <poll.h>
#include <sys/stat.h>
#include <utility>

#include <cowshed/tools/cowtop/complain.h>
#include <cowshed/tools/cowtop/exit_status.h>
#include <cowshed/tools/cowtop/live/player.h>
#include <cowshed/tools/cowtop/live/replay_view.h>
#include <cowshed/tools/cowtop/live/screen.h>
#include <cowshed/tools/cowtop/live/state.h>
#include <cowshed/tools/cowtop/live/terminal.h>
#include <cowshed/tools/cowtop/printable.h>
#include <cowshed/tools/cowtop/signals.h>

namespace cowshed::cowtop::live {
namespace {

using std::chrono::steady_clock;

constexpr double kSlowest = 0.25;
constexpr double kFastest = 1024;

std::string file_name(const std::string& path) {
  return printable(path.substr(path.rfind('/') + 1));
}

class ReplayView {
 public:
  ReplayView(std::string name, std::unique_ptr<Terminal> terminal, EndSignals signals)
      : name_(std::move(name)), terminal_(std::move(terminal)), signals_(std::move(signals)) {
    state_.source().title = "replay of " + name_;
    state_.source().message = "reading";
    draw();
    state_.source().message.clear();
  }

  bool is_asked_to_end() { return signals_.next().has_value(); }

  // Until a key or a signal ends it.
  Expected<void> run(Player& player) {
    if (!player.problem().empty()) state_.source().message = name_ + " " + player.problem();
    auto gone_to = go_to(player, 0);
    for (bool goes_on = true; goes_on && gone_to;) {
      draw();
      wait(player);
      goes_on = !signals_.next().has_value();
      while (const auto key = terminal_->next_key()) {
        const auto request = state_.press(*key);
        if (request == State::Request::quit) return {};
        if (gone_to) gone_to = follow(player, request);
      }
      if (terminal_->is_gone()) return {};
      if (gone_to && is_playing(player)) gone_to = play(player);
    }
    return gone_to;
  }

 private:
  bool is_playing(const Player& player) const {
    return !state_.is_paused() && player.interval() + 1 < player.size();
  }

  void draw() {
    state_.resize(terminal_->size());
    terminal_->clear();
    live::draw(state_, *terminal_);
    terminal_->show();
  }

  // For a key, a signal, or the next interval.
  void wait(const Player& player) {
    int timeout = -1;
    if (is_playing(player)) {
      constexpr double kMsPerSecond = 1000;
      const double left = (player.time_s(player.interval() + 1) - now_s()) / speed_;
      timeout = static_cast<int>(std::ceil(std::clamp(left, 0.0, 3600.0) * kMsPerSecond));
    }
    std::array<pollfd, 2> events{{{terminal_->fd(), POLLIN, 0}, {signals_.fd(), POLLIN, 0}}};
    ::poll(events.data(), events.size(), timeout);
  }

  // Where the playing is, in the recording's time.
  double now_s() const {
    const std::chrono::duration<double> passed = steady_clock::now() - since_;
    return since_s_ + passed.count() * speed_;
  }

  void begin_from(double time_s) {
    since_ = steady_clock::now();
    since_s_ = time_s;
  }

  Expected<void> play(Player& player) {
    std::size_t next = player.interval();
    while (next + 1 < player.size() && player.time_s(next + 1) <= now_s()) ++next;
    if (next == player.interval()) return {};
    const double now = now_s();
    auto gone_to = go_to(player, next);
    begin_from(now);  // the time that it took does not count
    return gone_to;
  }

  Expected<void> step_to(Player& player, std::size_t interval) {
    state_.set_paused(true);
    return go_to(player, interval);
  }

  Expected<void> go_to(Player& player, std::size_t interval) {
    state_.resize(terminal_->size());
    auto gone_to = player.go_to(interval, state_);
    begin_from(player.time_s(player.interval()));
    show_position(player);
    return gone_to;
  }

  Expected<void> follow(Player& player, State::Request request) {
    const std::size_t interval = player.interval();
    switch (request) {
      case State::Request::toggle_pause:
        begin_from(player.time_s(interval));
        state_.set_paused(!state_.is_paused());
        break;
      case State::Request::step_back:
        return step_to(player, interval - std::min<std::size_t>(interval, 1));
      case State::Request::step_forward: return step_to(player, interval + 1);
      case State::Request::to_begin: return step_to(player, 0);
      case State::Request::to_end: return step_to(player, player.size() - 1);
      case State::Request::faster:
        begin_from(now_s());
        speed_ = std::min(speed_ * 2, kFastest);
        break;
      case State::Request::slower:
        begin_from(now_s());
        speed_ = std::max(speed_ / 2, kSlowest);
        break;
      case State::Request::none:
      case State::Request::quit: break;
    }
    show_position(player);
    return {};
  }

  void show_position(const Player& player) {
    state_.source().position = fmt::format(
        "at {:.1f} s of {:.1f} s{}", player.time_s(player.interval()),
        player.time_s(player.size() - 1), speed_ == 1 ? "" : fmt::format(", {}x", speed_));
  }

  State state_{Mode::replay};
  std::string name_;
  std::unique_ptr<Terminal> terminal_;
  EndSignals signals_;
  double speed_ = 1;
  steady_clock::time_point since_ = steady_clock::now();
  double since_s_ = 0;
};

}  // namespace

int replay(const std::string& path) {
  if (!Terminal::is_there()) {
    complain("replay needs a terminal; cowtop report " + path + " prints what it has");
    return kOwnError;
  }
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0 && S_ISFIFO(status.st_mode)) {
    complain(path +
             ": is a pipe, and replay reads more than once; cowtop report prints what it has");
    return kOwnError;
  }
  auto terminal = Terminal::open();
  if (!terminal) return own_error(terminal.error());
  auto signals = EndSignals::open();
  if (!signals) return own_error(signals.error());
  auto view =
      std::make_unique<ReplayView>(file_name(path), std::move(*terminal), std::move(*signals));
  auto player = Player::open(path, [&] { return !view->is_asked_to_end(); });
  const Expected<void> ended = player ? view->run(*player) : tl::make_unexpected(player.error());
  view.reset();  // the terminal is as it was
  return ended || ended.error().code == ErrorCode::interrupted ? 0 : own_error(ended.error());
}

}  // namespace cowshed::cowtop::live
