#include <algorithm>
#include <fmt/format.h>

#include <cowshed/tools/cowtop/live/drawing.h>
#include <cowshed/tools/cowtop/live/panes.h>
#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop::live {
namespace {

class Screen {
 public:
  Screen(const State& state, Surface& surface)
      : state_(state), surface_(surface), layout_(state.layout()) {}

  void draw() {
    if (layout_.is_too_small()) {
      line(0, fmt::format("too small: {}x{}", layout_.size.columns, layout_.size.rows),
           Style::normal);
      return;
    }
    draw_header();
    if (layout_.table_rows > 0) draw_table();
    if (layout_.pane_rows > 0) draw_pane();
    draw_status();
  }

 private:
  void line(int row, std::string_view text, Style style) {
    surface_.put(row, 0, fit(text, layout_.size.columns, surface_.unicode()), style);
  }

  void draw_header() {
    const auto lines = header_lines(state_.header_parts(), layout_.size.columns);
    for (std::size_t i = 0; i < lines.size(); ++i)
      line(static_cast<int>(i), lines[i], i == 0 ? Style::title : Style::normal);
  }

  void draw_table() {
    draw_headings();
    const auto& rows = state_.rows().rows;
    if (rows.empty()) {
      line(layout_.first_row(), empty_text(), Style::normal);
      return;
    }
    for (int i = 0; i < layout_.table_rows; ++i) {
      const std::size_t row = state_.top() + static_cast<std::size_t>(i);
      if (row < rows.size()) draw_row(layout_.first_row() + i, rows[row], row == state_.selected());
    }
  }

  std::string empty_text() const {
    if (state_.is_loading()) return {};
    if (!state_.view().filter.empty())
      return "no process matches '" + printable(state_.view().filter) + "'";
    return "no processes yet";
  }

  void draw_headings() {
    surface_.put(layout_.heading_row, 0, " ", Style::heading);
    for (const PlacedColumn& column : layout_.columns) {
      const bool is_sorted = column.column == state_.view().sort;
      std::string title(info(column.column).title);
      if (is_sorted) {
        const bool down = state_.view().is_descending;
        const char* mark = surface_.unicode() ? (down ? "▼" : "▲") : (down ? "v" : "^");
        title.insert(0, mark);
      }
      put_cell(layout_.heading_row, column, title, is_sorted ? Style::sorted : Style::heading,
               Style::heading);
    }
  }

  static Align align_of(Column column) {
    return column == Column::command || column == Column::curve ? Align::left : Align::right;
  }

  // Draws the cell and the space behind it.
  void put_cell(int row, const PlacedColumn& column, std::string_view text, Style style,
                Style space) {
    surface_.put(row, column.begin,
                 fit(text, column.width, surface_.unicode(), align_of(column.column)), style);
    const int end = column.begin + column.width;
    if (end < layout_.size.columns) surface_.put(row, end, " ", space);
  }

  void draw_row(int at, const Row& row, bool is_selected) {
    const cow::ProcessCopies& process = state_.model().measurement.processes[row.process];
    const Style style = is_selected      ? Style::selected
                        : !process.alive ? Style::ended
                                         : Style::normal;
    surface_.put(at, 0, is_selected ? ">" : " ", style);
    for (const PlacedColumn& column : layout_.columns) {
      std::string text = cell(column.column, process, state_.model());
      Style here = style;
      if (column.column == Column::curve) {
        text = bars(state_.model().history.curve(row.id), surface_.unicode());
      } else if (column.column == Column::command) {
        text = command_text(row, process);
      } else if (column.column == Column::rate && style == Style::normal &&
                 state_.model().history.copied_per_second(process).value_or(0) > 0) {
        here = Style::changing;
      }
      put_cell(at, column, text, here, style);
    }
  }

  std::string command_text(const Row& row, const cow::ProcessCopies& process) const {
    std::string text;
    const bool unicode = surface_.unicode();
    for (std::size_t i = 0; i < row.branches.size(); ++i) {
      const bool more = row.branches[i];
      const bool is_own = i + 1 == row.branches.size();
      text += is_own ? (unicode ? (more ? "├─ " : "└─ ") : (more ? "|- " : "`- "))
                     : (more ? (unicode ? "│  " : "|  ") : "   ");
    }
    text += printable(process.name()) + and_more(process);
    if (row.folded > 0) text += fmt::format(" [+{}]", row.folded);
    if (!process.alive) text += " (" + ending(process) + ")";
    return text;
  }

  void draw_pane() {
    line(layout_.pane_row, pane_title(state_), Style::heading);
    const auto lines = pane_lines(state_, layout_.size.columns);
    const int rows = layout_.pane_rows - 1;
    const int count = static_cast<int>(lines.size());
    const int first = state_.pane() == Pane::output
                          ? std::max(count - rows - state_.pane_scroll(), 0)
                          : state_.pane_scroll();
    const int last = std::min(first + rows, count);
    int row = layout_.pane_row;
    for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i)
      line(++row, lines[i], Style::normal);
  }

  void draw_status() {
    constexpr std::string_view kKeys =
        "h help  q quit  w report  Enter details  t tree  <> sort  / search  f filter";
    const std::string pause = state_.is_paused() ? "PAUSED  " : "";
    const std::string& message = state_.source().message;
    if (const auto prompt = state_.prompt())
      line(layout_.status_row(), *prompt + "_", Style::alert);
    else if (!message.empty()) line(layout_.status_row(), pause + message, Style::alert);
    else line(layout_.status_row(), pause + std::string(kKeys), Style::normal);
  }

  const State& state_;
  Surface& surface_;
  Layout layout_;
};

}  // namespace

void draw(const State& state, Surface& surface) { Screen(state, surface).draw(); }

}  // namespace cowshed::cowtop::live
