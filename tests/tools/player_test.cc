#include <cstddef>
#include <cstdint>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/live/player.h>
#include <cowshed/tools/cowtop/recorder.h>

// Forth and back in a recording that is longer than what is kept of it.
namespace cowshed::cowtop::live {
namespace {

constexpr std::size_t kIntervals = 150;
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStep = 10;  // each takes most of a second
#else
constexpr std::size_t kStep = 1;
#endif

cow::Measurement measurement_at(std::size_t interval) {
  constexpr std::uint64_t kSecond = 1'000'000'000;
  cow::Measurement measurement;
  measurement.backend = "tracepoint";
  measurement.exact = true;
  measurement.duration_s = static_cast<double>(interval + 1);
  measurement.taken_ns = (1000 + interval) * kSecond;
  measurement.lost_events = 0;
  cow::ProcessCopies process;
  process.pid = 7;
  process.ppid = 1;
  process.comm = "worker";
  process.alive = true;
  process.role = cow::Role::child;
  process.start_ns = 1;
  process.shared_at_fork_bytes = 100 << 20;
  process.copied_anon_pages = interval * 16;
  process.copied_file_pages = 0;
  measurement.processes = {process};
  return measurement;
}

struct Shown {
  std::uint64_t pages;
  std::vector<double> curve;
  bool operator==(const Shown&) const = default;
};

Shown shown_by(const State& state) {
  const auto& process = state.model().measurement.processes.at(0);
  return {process.copied_anon_pages.value(), state.model().history.curve(id_of(process))};
}

TEST(Player, ShowsTheSameWhateverWasShownBefore) {
  TestFolder folder;
  const std::string path = folder / "long.cowtop";
  MeasureOptions options;
  options.command = {"./server"};
  auto recorder = Recorder::start(OutputFile::open(path).value(), options);
  for (std::size_t i = 0; i < kIntervals; ++i) {
    ASSERT_TRUE(recorder.value().append(measurement_at(i)));
  }
  ASSERT_TRUE(recorder.value().end(measurement_at(kIntervals - 1), 0));

  auto player = Player::open(path, [] { return true; });
  ASSERT_TRUE(player);
  State state(Mode::replay);
  std::vector<std::size_t> walk;
  for (std::size_t i = kIntervals; i > kStep;) walk.push_back(i -= kStep);
  walk.insert(walk.end(), {0, 1, 2, 100, 99, 140, 101, 149, 60, 61, 59, 149, 0});
  for (const std::size_t interval : walk) {
    SCOPED_TRACE(interval);
    ASSERT_TRUE(player->go_to(interval, state));
    EXPECT_EQ(player->interval(), interval);
    const Shown shown = shown_by(state);
    EXPECT_EQ(shown.pages, interval * 16);
    auto fresh = Player::open(path, [] { return true; });
    State alone(Mode::replay);
    ASSERT_TRUE(fresh && fresh->go_to(interval, alone));
    EXPECT_EQ(shown, shown_by(alone));
  }

  std::size_t asked = 0;
  const auto interrupted = Player::open(path, [&asked] { return ++asked < 3; });
  ASSERT_FALSE(interrupted);
  EXPECT_EQ(interrupted.error().code, ErrorCode::interrupted);
  EXPECT_EQ(asked, 3U) << "the rest is not read";
}

}  // namespace
}  // namespace cowshed::cowtop::live
