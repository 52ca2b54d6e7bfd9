#pragma once

#include <optional>
#include <string>
#include <vector>

#include <cowshed/tools/cowtop/live/layout.h>
#include <cowshed/tools/cowtop/live/model/columns.h>
#include <cowshed/tools/cowtop/live/model/rows.h>

namespace cowshed::cowtop::live {

// The pane below the table, or in its place.
enum class Pane : std::uint8_t { none, details, columns, output, report, help };

// What the view shows of cowtop itself and of the command.
struct Source {
  std::optional<double> own_cpu;  // cowtop's own share of a CPU
  std::string message;            // in the status line
  std::string output;             // the last part of the command's output
};

// The state of the live view, without a terminal: keys change it, and screen.h draws it.
class State {
 public:
  // What a key asks of the owner of the measurement.
  enum class Request : std::uint8_t { none, quit, toggle_pause };
  // Handles a key.  `pane_lines` is the number of lines of the open pane (panes.h).
  Request press(const Key& key, int pane_lines = 0);

  void resize(Size size);
  void update(cow::Measurement measurement);
  // Takes the sampled code of all together, and of those processes that have it in `measurement`.
  void use_code(cow::Measurement measurement);
  void use_memory(std::map<ProcessId, MemoryUse> memory);

  Source& source() { return source_; }
  const Source& source() const { return source_; }
  bool is_paused() const { return is_paused_; }
  void set_paused(bool paused) { is_paused_ = paused; }

  bool is_loading() const { return is_loading_; }  // no measurement yet
  const Model& model() const { return model_; }
  const View& view() const { return view_; }
  const Rows& rows() const { return rows_; }
  Pane pane() const { return pane_; }
  // Hidden lines of the pane: above its first line, for the output below its last.
  int pane_scroll() const { return pane_scroll_; }
  std::size_t chosen_column() const { return chosen_column_; }
  // The index in rows(); 0 if there are none.
  std::size_t selected() const { return selected_; }
  // The index of the first row on the screen.
  std::size_t top() const { return top_; }
  const cow::ProcessCopies* selected_process() const;
  // The input line: "filter: " or "search: " and the typed text; nullopt: none.
  std::optional<std::string> prompt() const;
  Layout layout() const;
  std::vector<ProcessId> running() const;
  std::vector<ProcessId> running_on_screen() const;
  std::vector<std::string> header_parts() const;
  bool has_column(Column column) const {
    return view_.columns.at(static_cast<std::size_t>(column));
  }
  // Shown or sorted by.
  bool needs(Column column) const { return has_column(column) || view_.sort == column; }

 private:
  enum class Input : std::uint8_t { none, filter, search };

  void type(const Key& key);
  Request press_character(char32_t character);
  bool press_in_columns(const Key& key);  // false: the key has no meaning there
  void press_special(const Key& key);
  void click(const Key& key);
  void move(long by);
  void select(std::size_t row);
  std::optional<std::size_t> row_of(const ProcessId& id) const;
  void sort_by(Column column);
  void sort_by_neighbour(int step);
  void collapse(bool collapsed);
  void search(bool forward, bool from_here);
  void toggle(Pane pane);
  void scroll_pane(int by);
  void flip(bool& of_view);
  void remake_rows();
  void keep_on_screen();

  Size size_;
  Source source_;
  Model model_;
  View view_;
  Rows rows_;
  bool is_loading_ = true;
  bool is_paused_ = false;
  Pane pane_ = Pane::none;
  int pane_scroll_ = 0;
  int pane_lines_ = 0;
  std::size_t chosen_column_ = 0;
  Input input_ = Input::none;
  std::string typed_;
  std::string before_;  // the filter or the search before the typing
  std::string search_;
  ProcessId selected_before_;  // before the typing
  std::size_t selected_ = 0;
  bool has_selected_ = false;  // until a key moves the selection, it is the first row
  ProcessId selected_id_;
  std::size_t top_ = 0;
};

}  // namespace cowshed::cowtop::live
