#include <clocale>
#include <cwchar>

#include <cowshed/base/utf8.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/live/drawing.h>
#include <cowshed/tools/cowtop/live/panes.h>
#include <cowshed/tools/cowtop/live/state.h>
#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop::live {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kBegin = 1000 * kSecond;
constexpr std::uint64_t kPagesPerMiB = 256;

cow::Measurement measurement_after(int seconds) {
  cow::Measurement measurement = measurement_with({});
  measurement.duration_s = seconds;
  measurement.taken_ns = kBegin + static_cast<std::uint64_t>(seconds) * kSecond;
  measurement.lost_events = 0;
  measurement.overhead = {100'000, 100};
  return measurement;
}

cow::ProcessCopies process_of(pid_t pid, pid_t parent, const std::string& name) {
  cow::ProcessCopies process = copier(pid, name, 0, parent);
  process.alive = true;
  process.start_ns = kBegin + static_cast<std::uint64_t>(pid);
  process.shared_at_fork_bytes = 100 << 20;
  process.reused_pages = static_cast<std::uint64_t>(pid) % 7;
  process.zero_page_writes = static_cast<std::uint64_t>(pid) % 5;
  process.zero_filled_pages = 10;
  return process;
}

void end(cow::ProcessCopies& process, int second, int now, std::optional<int> status, int signal) {
  if (now < second) return;
  process.alive = false;
  process.end_ns = kBegin + static_cast<std::uint64_t>(second) * kSecond;
  process.exit_status = status;
  if (signal != 0) process.signal = signal;
}

// 10 MiB a second up to the time of its end.
void copy(cow::ProcessCopies& process, int mib_per_second, int seconds) {
  process.copied_anon_pages = static_cast<std::uint64_t>(mib_per_second) *
                              static_cast<std::uint64_t>(seconds) * kPagesPerMiB;
}

cow::SampledCopies sampled_of(std::uint64_t copies) {
  cow::SampledCopies sampled;
  const cow::Frame site{"Index::touch()", "/src/index.cc", 12, "/bin/server", 0x1234, false};
  const cow::Frame caller{"main", "/src/main.cc", 30, "/bin/server", 0x2345, false};
  sampled.samples = copies / 64;
  sampled.sites = {{{site}, {site, caller}, sampled.samples, copies, false}};
  sampled.mappings = {{"[heap]", sampled.samples, copies}};
  sampled.ranges = {{0x600000, 0x800000, "[heap]", sampled.samples / 2, 100},
                    {0x200000, 0x400000, "[heap]", sampled.samples / 2, 512}};
  sampled.stacks = {{"server;main;Index::touch()", sampled.samples, copies}};
  return sampled;
}

// A server of six processes after so many seconds, always the same: one worker ends after 2 s, one
// is killed after 3 s, the server ends after 21 s.
cow::Measurement server_after(int seconds) {
  cow::Measurement measurement = measurement_after(seconds);
  measurement.sampling = {64, 100, 98, 2};
  cow::ProcessCopies server = process_of(100, 1, "server");
  server.role = cow::Role::root;
  server.shared_at_fork_bytes.reset();
  cow::ProcessCopies busy = process_of(101, 100, "worker-1");
  copy(busy, 4, seconds);
  busy.sampled = sampled_of(*busy.copied_anon_pages);
  busy.patterns = {{"reference count", 0.75, 8, "inc [rdi]"}, {"unknown", 0.25, 2, ""}};
  busy.arenas = {{"index", 64 << 20, 40}};
  busy.objects = {{{"words", "std::pmr::vector<Word>", "index", 30}}};
  busy.memory = {80 << 20, 20 << 20, measurement.taken_ns - kSecond / 2};
  cow::ProcessCopies idle = process_of(102, 100, "wörker-2\t\x1b[31m");
  copy(idle, 1, std::min(seconds, 1));
  cow::ProcessCopies ending = process_of(103, 100, "worker-3");
  copy(ending, 30, std::min(seconds, 2));
  end(ending, 2, seconds, 3, 0);
  cow::ProcessCopies helper = process_of(104, 101, "helper");
  copy(helper, 2, std::min(seconds, 3));
  end(helper, 3, seconds, std::nullopt, 9);
  cow::ProcessCopies unknown = process_of(105, 104, "grandchild");
  unknown.copied_anon_pages.reset();
  unknown.not_measured = "PID 105: not permitted";
  for (cow::ProcessCopies* each : {&server, &busy, &idle, &unknown}) end(*each, 21, seconds, 0, 0);
  measurement.processes = {server, busy, idle, ending, helper, unknown};
  return measurement;
}

// So many workers and their server; none: no processes.
cow::Measurement workers(int count) {
  cow::Measurement measurement = measurement_after(1);
  if (count > 0) {
    measurement.processes.push_back(process_of(1000, 1, "server"));
    measurement.processes[0].role = cow::Role::root;
  }
  for (int i = 1; i <= count; ++i) {
    measurement.processes.push_back(process_of(1000 + i, 1000, "worker-" + std::to_string(i)));
    measurement.processes.back().copied_anon_pages = static_cast<std::uint64_t>(i);
  }
  return measurement;
}

State server_state(int seconds) {
  State state;
  state.resize({24, 80});
  state.update(server_after(seconds));
  return state;
}

// Some characters, which mean nothing to it, stand for other keys.
void press(State& state, std::string_view keys) {
  static const std::map<char, KeyKind> others = {
      {'\n', KeyKind::enter},   {'\x1b', KeyKind::escape}, {'\b', KeyKind::backspace},
      {'^', KeyKind::up},       {'_', KeyKind::down},      {'{', KeyKind::page_up},
      {'}', KeyKind::page_down}};
  for (const char each : keys) {
    const auto other = others.find(each);
    state.press(other == others.end() ? Key{KeyKind::character, static_cast<char32_t>(each)}
                                      : Key{other->second},
                pane_height(state));
  }
}

std::vector<pid_t> pids(const State& state) {
  std::vector<pid_t> result;
  for (const Row& row : state.rows().rows) result.push_back(row.id.pid);
  return result;
}

pid_t selected(const State& state) { return state.selected_process()->pid; }

TEST(LiveText, FitsExactly) {
  EXPECT_EQ(fit("abc", 5, true), "abc  ");
  EXPECT_EQ(fit("abc", 5, true, Align::right), "  abc");
  EXPECT_EQ(fit("abcdef", 5, true), "abcd…");
  EXPECT_EQ(fit("abcdef", 5, false), "abcd~");
  EXPECT_EQ(fit("äöü", 3, true), "äöü");
  EXPECT_EQ(fit("äöü", 3, false), "???");
  EXPECT_EQ(fit("abc", 0, true), "");
}

TEST(LiveText, WrapsAtSpaces) {
  EXPECT_THAT(wrap("", 20), ElementsAre(""));
  EXPECT_THAT(wrap("one two three", 9), ElementsAre("one two", "    three"));
  EXPECT_THAT(wrap("abcdefghijkl", 8), ElementsAre("abcdefgh", "    ijkl"));
}

TEST(LiveText, Utf8) {
  for (const char* text : {"a", "ä", "…", "😀"}) {
    std::mbstate_t state{};
    wchar_t wide = 0;
    std::setlocale(LC_CTYPE, "C.UTF-8");
    std::mbrtowc(&wide, text, std::string_view(text).size(), &state);
    EXPECT_EQ(internal::utf8(static_cast<char32_t>(wide)), text);
  }
  EXPECT_TRUE(contains("Worker", "WORK"));
  EXPECT_FALSE(contains("worker", "works"));
}

TEST(LiveHistory, RatesAreOfTheLastTwoLooks) {
  Model model;
  const History& history = model.history;
  model.update(server_after(1));
  const cow::Measurement later = server_after(3);
  model.update(later);
  const cow::ProcessCopies& busy = later.processes[1];
  EXPECT_DOUBLE_EQ(history.copied_per_second(busy).value_or(-1), 4 * kMiB);
  EXPECT_THAT(history.curve(busy.id()), IsEmpty()) << "nobody knows for whom it copied";
  EXPECT_THAT(history.curve(later.processes[3].id()), ElementsAre(0.7, 0.4));
  EXPECT_FALSE(history.copied_per_second(later.processes[5]));
  EXPECT_EQ(history.ended_ns(busy.id()), 0U);
  EXPECT_EQ(history.ended_ns(later.processes[3].id()), *later.processes[3].end_ns);
}

TEST(LiveHistory, WhatWasAddedUpHasNoRate) {
  Model model;
  const History& history = model.history;
  model.update(server_after(1));
  cow::Measurement measurement = server_after(2);
  measurement.processes[1].processes = 100;
  measurement.processes[1].copied_anon_pages = 100'000;
  model.update(measurement);
  EXPECT_FALSE(history.copied_per_second(measurement.processes[1]));
  EXPECT_TRUE(history.copied_per_second(measurement.processes[2]));
}

TEST(LiveHistory, IsNoLongerThanTheCurve) {
  Model model;
  const History& history = model.history;
  for (int second = 1; second <= 20; ++second) model.update(server_after(second));
  EXPECT_EQ(history.curve(server_after(20).processes[2].id()).size(), History::kPoints);
}

TEST(LiveHistory, AnExecEndsTheSharing) {
  cow::Measurement measurement = server_after(1);
  cow::ProcessCopies& worker = measurement.processes[2];
  Model model;
  const History& history = model.history;
  model.update(measurement);
  EXPECT_TRUE(sort_value(column_of("STILL SHARED"), worker, model));
  worker.execs = 1;
  measurement.taken_ns += 1;
  model.update(measurement);
  EXPECT_FALSE(sort_value(column_of("STILL SHARED"), worker, model));
  EXPECT_THAT(history.curve(worker.id()), IsEmpty()) << "of another program";
  EXPECT_EQ(cell(column_of("SHARED"), worker, model), kUnknown);
  EXPECT_EQ(cell(column_of("STILL SHARED"), worker, model), kUnknown);
}

// After a second.
class LiveState : public ::testing::Test {
 protected:
  State state_ = server_state(1);
};
using LiveScreen = LiveState;

TEST_F(LiveState, ATreeHasItsChildrenBelowTheirParents) {
  EXPECT_THAT(pids(state_), ElementsAre(100, 103, 101, 104, 105, 102));
}

TEST_F(LiveState, EveryColumnSortsBothWays) {
  State state = server_state(2);
  cow::Measurement measurement = server_after(3);
  measurement.processes[4].shared_at_fork_bytes = 200 << 20;
  state.use_memory({{measurement.processes[2].id(), {2 << 20, 1 << 20, 1}},
                    {measurement.processes[4].id(), {3 << 20, 1 << 19, 1}}});
  state.update(measurement);
  press(state, "t");
  struct Orders {
    std::vector<pid_t> ascending;
    std::vector<pid_t> descending;
  };
  // What is not known comes last, and what is equal keeps its order, both ways.
  const std::map<Column, Orders> expected = {
      {Column::pid, {{100, 101, 102, 103, 104, 105}, {105, 104, 103, 102, 101, 100}}},
      {column_of("COPIED"), {{100, 102, 104, 101, 103, 105}, {103, 101, 104, 102, 100, 105}}},
      {Column::rate, {{100, 102, 103, 104, 101, 105}, {101, 104, 100, 102, 103, 105}}},
      {column_of("NEW"), {{101, 102, 103, 104, 100, 105}, {104, 103, 102, 101, 100, 105}}},
      {column_of("SHARED"), {{101, 102, 103, 105, 104, 100}, {104, 101, 102, 103, 105, 100}}},
      {column_of("STILL SHARED"), {{103, 102, 100, 101, 104, 105}, {102, 103, 100, 101, 104, 105}}},
      {Column::curve, {{103, 102, 100, 101, 104, 105}, {102, 103, 100, 101, 104, 105}}},
      {column_of("REUSED"), {{105, 100, 101, 102, 103, 104}, {104, 103, 102, 101, 100, 105}}},
      {column_of("ZERO"), {{100, 105, 101, 102, 103, 104}, {104, 103, 102, 101, 100, 105}}},
      {Column::rss, {{102, 104, 100, 101, 103, 105}, {104, 102, 100, 101, 103, 105}}},
      {Column::pss, {{104, 102, 100, 101, 103, 105}, {102, 104, 100, 101, 103, 105}}},
      {Column::command, {{105, 104, 100, 101, 103, 102}, {102, 103, 101, 100, 104, 105}}}};
  const auto sorted = [&](Column column, bool is_descending) {
    View view = state.view();
    view.sort = column;
    view.is_descending = is_descending;
    std::vector<pid_t> found;
    for (const Row& row : rows_of(state.model(), view).rows) found.push_back(row.id.pid);
    return found;
  };
  for (const auto& [column, orders] : expected) {
    EXPECT_EQ(sorted(column, false), orders.ascending) << info(column).title;
    EXPECT_EQ(sorted(column, true), orders.descending) << info(column).title;
  }
}

TEST_F(LiveState, EndedProcessesAreShownForAWhileUnlessAllHaveEnded) {
  EXPECT_THAT(pids(server_state(12)), ElementsAre(100, 103, 101, 104, 105, 102));
  State state = server_state(13);
  EXPECT_THAT(pids(state), ElementsAre(100, 101, 104, 105, 102)) << "104 has a child that lives";
  EXPECT_EQ(state.rows().ended_hidden, 1U);
  press(state, "a");
  EXPECT_EQ(pids(state).size(), 6U);
  EXPECT_EQ(pids(server_state(21)).size(), 6U);
}

TEST_F(LiveState, TheSelectionFollowsItsProcess) {
  press(state_, "j");
  EXPECT_EQ(selected(state_), 103);
  press(state_, "r");
  EXPECT_EQ(selected(state_), 103);
  state_.update(server_after(20));
  EXPECT_NE(selected(state_), 103) << "it is shown no more";
  press(state_, "G");
  press(state_, "j");
  EXPECT_EQ(state_.selected(), state_.rows().rows.size() - 1);
  press(state_, "gk");
  EXPECT_EQ(selected(state_), 100);
}

TEST_F(LiveState, WhatIsCollapsedIsCounted) {
  state_.press({KeyKind::left});
  EXPECT_THAT(pids(state_), ElementsAre(100));
  EXPECT_EQ(state_.rows().rows[0].folded, 5U);
  state_.press({KeyKind::right});
  EXPECT_EQ(pids(state_).size(), 6U);
}

TEST_F(LiveState, AFilterFindsWhatIsCollapsed) {
  press(state_, "jjx");
  EXPECT_THAT(pids(state_), ElementsAre(100, 103, 101, 102));
  press(state_, "fhelper");
  EXPECT_THAT(pids(state_), ElementsAre(100, 101, 104));
  state_.press({KeyKind::escape});
  EXPECT_THAT(pids(state_), ElementsAre(100, 103, 101, 102));
}

TEST_F(LiveState, EscapeBringsBackTheFilterThatWas) {
  press(state_, "fhelper");
  EXPECT_THAT(pids(state_), ElementsAre(100, 101, 104));
  EXPECT_EQ(state_.prompt(), "filter: helper");
  state_.press({KeyKind::escape});
  EXPECT_FALSE(state_.prompt());
  EXPECT_EQ(pids(state_).size(), 6U);
  press(state_, "G");
  const pid_t before = selected(state_);
  press(state_, "fhelper");
  EXPECT_NE(selected(state_), before);
  state_.press({KeyKind::escape});
  EXPECT_EQ(selected(state_), before);
}

TEST_F(LiveState, EscapeGoesBackToWhereTheSearchBegan) {
  press(state_, "/worker\nG");
  const pid_t before = selected(state_);
  press(state_, "/\x1b");
  EXPECT_EQ(selected(state_), before);
  press(state_, "/helper");
  EXPECT_NE(selected(state_), before);
  state_.press({KeyKind::escape});
  EXPECT_EQ(selected(state_), before);
  press(state_, "gn");
  EXPECT_EQ(state_.selected_process()->comm, "worker-3") << "the search is that of before";
}

TEST_F(LiveState, EscapeEndsAFilterOnceNothingElseIsOpen) {
  press(state_, "fhelper\nh\x1b");
  EXPECT_EQ(state_.pane(), Pane::none);
  EXPECT_EQ(pids(state_).size(), 3U);
  state_.press({KeyKind::escape});
  EXPECT_EQ(pids(state_).size(), 6U);
}

TEST_F(LiveState, ItHasNoRowsOfNothing) {
  State state;
  state.resize({24, 80});
  state.update({});
  press(state, "jkgGtxrna<>");
  for (const KeyKind kind : {KeyKind::page_down, KeyKind::enter, KeyKind::page_down,
                             KeyKind::wheel_up, KeyKind::click, KeyKind::end}) {
    state.press({kind});
  }
  EXPECT_THAT(pids(state), IsEmpty());
  EXPECT_EQ(state.selected_process(), nullptr);
}

TEST_F(LiveState, TheMouseSelectsAndSorts) {
  state_.press({KeyKind::click, 0, 6, 30});
  EXPECT_EQ(state_.selected(), 2U);
  state_.press({KeyKind::wheel_down});
  EXPECT_EQ(state_.selected(), 5U);
  state_.press({KeyKind::click, 0, 3, 5});
  EXPECT_EQ(state_.view().sort, Column::pid);
  EXPECT_FALSE(state_.view().is_descending);
}

TEST_F(LiveState, FindsOneOfTwoThousandProcesses) {
  state_.update(workers(2000));
  press(state_, "G");
  EXPECT_EQ(state_.top() + static_cast<std::size_t>(state_.layout().table_rows), 2001U);
  press(state_, "g}}{");
  EXPECT_EQ(state_.selected(), static_cast<std::size_t>(state_.layout().table_rows - 1));
  press(state_, "/worker-777\n");
  EXPECT_EQ(state_.selected_process()->comm, "worker-777");
}

class TextSurface : public Surface {
 public:
  explicit TextSurface(Size size, bool unicode = false)
      : size_(size),
        unicode_(unicode),
        cells_(static_cast<std::size_t>(size.rows),
               std::vector<std::string>(static_cast<std::size_t>(size.columns), " ")) {}
  Size size() const override { return size_; }
  bool unicode() const override { return unicode_; }
  void put(int row, int column, std::string_view text, Style /*style*/) override {
    ASSERT_GE(row, 0);
    ASSERT_LT(row, size_.rows);
    ASSERT_LE(column + columns_of(text), size_.columns);
    auto& line = cells_[static_cast<std::size_t>(row)];
    auto at = static_cast<std::size_t>(column);
    for (const char byte : text) {
      const bool continues = (static_cast<unsigned char>(byte) & 0xc0U) == 0x80U;  // UTF-8
      if (continues) line[at - 1] += byte;
      else line[at++] = byte;
    }
  }
  // Without the spaces at the ends of lines.
  std::string text() const {
    std::string all;
    for (const auto& line : cells_) {
      for (const std::string& cell : line) all += cell;
      all.resize(all.find_last_not_of(' ') + 1);
      all += '\n';
    }
    return all;
  }

 private:
  Size size_;
  bool unicode_;
  std::vector<std::vector<std::string>> cells_;
};

std::string drawn(State& state, Size size, bool unicode = true) {
  TextSurface surface(size, unicode);
  state.resize(size);
  draw(state, surface);
  return surface.text();
}

// That it looks as tests/tools/screens/NAME.txt.  With UPDATE_SCREENS in the environment that file
// is written instead.
void expect_screen(const std::string& found, const std::string& name) {
  const std::string path = std::string(SCREENS) + "/" + name + ".txt";
  if (std::getenv("UPDATE_SCREENS") != nullptr) write_file(path, found);
  EXPECT_EQ(found, contents_of(path)) << name;
}

TEST_F(LiveScreen, ShowsATree) {
  expect_screen(drawn(state_, {12, 80}), "first");
  expect_screen(drawn(state_, {12, 80}, false), "first_ascii");
  expect_screen(drawn(state_, {10, 40}), "40x10");
  EXPECT_THAT(drawn(state_, {2, 2}), HasSubstr("t"));
  state_.update(server_after(20));
  press(state_, "a");
  expect_screen(drawn(state_, {12, 80}), "ended_shown");
}

TEST_F(LiveScreen, ShowsAllAboutAProcess) {
  state_.update(server_after(3));
  press(state_, "/worker-1\n\n");
  expect_screen(drawn(state_, {40, 100}), "details");
  drawn(state_, {20, 60});
  press(state_, "}");
  expect_screen(drawn(state_, {20, 60}), "details_scrolled");
}

TEST_F(LiveScreen, ShowsTheReportSoFar) {
  press(state_, "w");
  expect_screen(drawn(state_, {30, 80}), "report");
}

TEST_F(LiveScreen, ShowsHelp) {
  press(state_, "h");
  expect_screen(drawn(state_, {20, 100}), "help");
  drawn(state_, {12, 80});
  press(state_, "_{}}}}}}}");
  EXPECT_THAT(drawn(state_, {12, 80}), HasSubstr("not known to the backend"));
  press(state_, "?");
  EXPECT_THAT(drawn(state_, {12, 80}), HasSubstr("worker-1"));
}

TEST_F(LiveScreen, ShowsTheColumnsThatAreChosen) {
  State state = server_state(2);
  drawn(state, {24, 80});
  press(state, "tro_ ___jjjk ");
  EXPECT_THAT(drawn(state, {24, 80}), AllOf(HasSubstr("\n  [ ] SHARED       Memory that"),
                                            HasSubstr("\n> [ ] STILL SHARED The part")));
  press(state, "kkk \x1b");
  EXPECT_THAT(drawn(state, {24, 80}),
              HasSubstr("PID  ▲COPIED COPIED %      OWN   MiB/s CURVE      COMMAND\n"));
}

TEST_F(LiveScreen, ShowsWhatIsTyped) {
  press(state_, "fGRAND");
  EXPECT_THAT(drawn(state_, {12, 80}), HasSubstr("filter: GRAND_"));
  press(state_, "\b\b\b\b\bno such\n");
  expect_screen(drawn(state_, {12, 80}), "filter_nothing");
}

TEST_F(LiveScreen, ShowsThatThereIsNothing) {
  state_.update(workers(0));
  EXPECT_THAT(drawn(state_, {12, 80}), HasSubstr("no processes yet"));
}

TEST_F(LiveScreen, StaysWithinEverySize) {
  State state = server_state(3);
  for (const char* keys : {"", "h", "ho", "ol", "l\x1b", "f"}) {
    press(state, keys);
    for (int rows = 1; rows < 30; ++rows)
      for (int columns = 1; columns < 130; columns += 3) drawn(state, {rows, columns}, false);
  }
}

}  // namespace
}  // namespace cowshed::cowtop::live
