#include <algorithm>
#include <fmt/format.h>

#include <cowshed/base/utf8.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/summary.h>
#include <cowshed/tools/cowtop/live/state.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop::live {
namespace {

constexpr double kPercent = 100;
constexpr int kWheelRows = 3;

bool is_typed(char32_t character) { return character >= ' ' && character != 0x7f; }

void remove_last_character(std::string& text) {
  while (!text.empty()) {
    const auto byte = static_cast<unsigned char>(text.back());
    text.pop_back();
    if ((byte & 0xc0) != 0x80) return;
  }
}

std::string processes_text(const cow::Measurement& measurement) {
  const auto& all = measurement.processes;
  const auto running = std::ranges::count_if(all, &cow::ProcessCopies::alive);
  return fmt::format("{}, {} running", plural(measurement.process_count(), "process"), running);
}

// As the report counts.
std::string copied_text(const cow::Measurement& measurement) {
  const Summary summary = summarize(measurement);
  if (!summary.is_all_known && summary.copied_bytes == 0) return kUnknown;
  const std::string copied = mib(summary.copied_bytes);
  std::string text = breakable(copied);
  if (summary.exit_bytes >= kLeastBytes)
    text += fmt::format(" ({} more at exits)",
                        breakable(without_unit_of(copied, mib(summary.exit_bytes))));
  return text + (summary.is_all_known ? "" : ", and what is not known (-)");
}

std::string loss_text(const cow::Measurement& measurement) {
  std::string text;
  if (measurement.lost_events) text = plural(*measurement.lost_events, "event") + " lost";
  if (measurement.sampling) {
    text += fmt::format("{}{} of {} samples lost", text.empty() ? "" : ", ",
                        measurement.sampling->lost, measurement.sampling->emitted);
  }
  if (measurement.not_seen && measurement.not_seen->at_most.value_or(1) > 0) {
    const cow::ProcessesNotSeen& not_seen = *measurement.not_seen;
    text += fmt::format("{}{}{} not seen", text.empty() ? "" : ", ",
                        not_seen.at_most ? "" : "at least ",
                        plural(not_seen.at_most.value_or(not_seen.at_least), "process"));
  }
  return text;
}

std::string cost_text(const cow::Measurement& measurement, std::optional<double> own) {
  std::string text;
  if (own) text = fmt::format("cowtop {:.1f}%", *own * kPercent);
  if (const auto probes = probes_cpu(measurement))
    text += fmt::format("{}probes {:.1f}%", text.empty() ? "" : ", ", *probes * kPercent);
  return text.empty() ? text : "cost: " + text + " of a CPU";
}

}  // namespace

void State::resize(Size size) {
  size_ = size;
  keep_on_screen();
}

void State::update(cow::Measurement measurement) {
  is_loading_ = false;
  model_.update(std::move(measurement));
  remake_rows();
}

void State::use_code(cow::Measurement measurement) {
  model_.measurement.sampled = std::move(measurement.sampled);
  model_.measurement.new_memory = std::move(measurement.new_memory);
  std::map<ProcessId, cow::ProcessCopies*> newer;
  for (cow::ProcessCopies& process : measurement.processes)
    if (process.sampled) newer[process.id()] = &process;
  for (cow::ProcessCopies& process : model_.measurement.processes) {
    const auto found = newer.find(process.id());
    if (found == newer.end()) continue;
    process.sampled = std::move(found->second->sampled);
    process.patterns = std::move(found->second->patterns);
  }
}

void State::use_memory(std::map<ProcessId, MemoryUse> memory) {
  model_.memory = std::move(memory);
  remake_rows();
}

const cow::ProcessCopies* State::selected_process() const {
  if (selected_ >= rows_.rows.size()) return nullptr;
  return &model_.measurement.processes[rows_.rows[selected_].process];
}

std::optional<std::string> State::prompt() const {
  if (input_ == Input::none) return std::nullopt;
  return (input_ == Input::filter ? "filter: " : "search: ") + printable(typed_);
}

Layout State::layout() const {
  const bool is_large = pane_ == Pane::help || pane_ == Pane::report;
  const PaneSize pane = pane_ == Pane::none ? PaneSize::none
                        : is_large          ? PaneSize::all
                                            : PaneSize::half;
  const auto header = header_lines(header_parts(), size_.columns);
  return layout_of(size_, static_cast<int>(header.size()), pane, view_);
}

std::vector<ProcessId> State::running() const {
  std::vector<ProcessId> result;
  for (const cow::ProcessCopies& process : model_.measurement.processes)
    if (process.alive) result.push_back(process.id());
  return result;
}

std::vector<ProcessId> State::running_on_screen() const {
  std::vector<ProcessId> result;
  const auto end =
      std::min(top_ + static_cast<std::size_t>(layout().table_rows), rows_.rows.size());
  for (std::size_t row = top_; row < end; ++row) {
    const Row& each = rows_.rows[row];
    if (model_.measurement.processes[each.process].alive) result.push_back(each.id);
  }
  return result;
}

std::vector<std::string> State::header_parts() const {
  std::vector<std::string> parts = {"cowtop"};
  if (is_loading_) return parts;
  const cow::Measurement& measurement = model_.measurement;
  parts.push_back(fmt::format("{}, {}", printable(measurement.backend), measurement.precision()));
  parts.push_back(fmt::format("{:.1f} s", measurement.duration_s));
  parts.push_back(processes_text(measurement));
  parts.push_back("copied: " + copied_text(measurement));
  parts.push_back(loss_text(measurement));
  parts.push_back(cost_text(measurement, source_.own_cpu));
  if (rows_.ended_hidden > 0)
    parts.push_back(fmt::format("{} ended, not shown (a)", rows_.ended_hidden));
  if (!view_.filter.empty()) parts.push_back("filter: " + printable(view_.filter));
  return parts;
}

State::Request State::press(const Key& key, int pane_lines) {
  pane_lines_ = pane_lines;
  if (input_ != Input::none) {
    type(key);
    return Request::none;
  }
  if (pane_ == Pane::columns && press_in_columns(key)) return Request::none;
  if (key.kind == KeyKind::character) return press_character(key.character);
  press_special(key);
  return Request::none;
}

void State::type(const Key& key) {
  if (key.kind == KeyKind::character && is_typed(key.character))
    typed_ += internal::utf8(key.character);
  else if (key.kind == KeyKind::backspace) remove_last_character(typed_);
  else if (key.kind == KeyKind::escape) typed_ = before_;
  else if (key.kind != KeyKind::enter) return;
  if (input_ == Input::filter) {
    view_.filter = typed_;
    remake_rows();
  } else {
    search_ = typed_;
    if (key.kind != KeyKind::escape) search(true, true);
  }
  if (const auto row = row_of(selected_before_); row && key.kind == KeyKind::escape) select(*row);
  if (key.kind == KeyKind::enter || key.kind == KeyKind::escape) input_ = Input::none;
}

State::Request State::press_character(char32_t character) {
  switch (character) {
    case 'q': return Request::quit;
    case ' ':
    case 'p': return Request::toggle_pause;
    case 'k': move(-1); break;
    case 'j': move(1); break;
    case 'g': select(0); break;
    case 'G': select(rows_.rows.size()); break;
    case 't': flip(view_.is_tree); break;
    case 'x':
      if (selected_process()) collapse(!view_.collapsed.contains(selected_id_));
      break;
    case '<': sort_by_neighbour(-1); break;
    case '>': sort_by_neighbour(1); break;
    case 'r': flip(view_.is_descending); break;
    case 'a': flip(view_.shows_all_ended); break;
    case 'f':
      input_ = Input::filter;
      selected_before_ = selected_id_;
      before_ = typed_ = view_.filter;
      break;
    case '/':
      input_ = Input::search;
      before_ = search_;
      selected_before_ = selected_id_;
      typed_.clear();
      break;
    case 'n': search(true, false); break;
    case 'N': search(false, false); break;
    case 'o': toggle(Pane::columns); break;
    case 'l': toggle(Pane::output); break;
    case 'w': toggle(Pane::report); break;
    case 'h':
    case '?': toggle(Pane::help); break;
    default: break;
  }
  return Request::none;
}

void State::press_special(const Key& key) {
  const auto step = [this](int by) {
    if (pane_ == Pane::help || pane_ == Pane::output || pane_ == Pane::report) scroll_pane(by);
    else move(by);
  };
  const auto turn = [this](int pages) {
    if (pane_ == Pane::none) move(pages * std::max(layout().table_rows - 1, 1));
    else scroll_pane(pages * std::max(layout().pane_rows - 2, 1));
  };
  switch (key.kind) {
    case KeyKind::up: step(-1); break;
    case KeyKind::down: step(1); break;
    case KeyKind::wheel_up: step(-kWheelRows); break;
    case KeyKind::wheel_down: step(kWheelRows); break;
    case KeyKind::page_up: turn(-1); break;
    case KeyKind::page_down: turn(1); break;
    case KeyKind::left: collapse(true); break;
    case KeyKind::right: collapse(false); break;
    case KeyKind::home: select(0); break;
    case KeyKind::end: select(rows_.rows.size()); break;
    case KeyKind::enter: toggle(Pane::details); break;
    case KeyKind::escape:
      if (pane_ != Pane::none) {
        toggle(pane_);
      } else {
        view_.filter.clear();
        remake_rows();
      }
      break;
    case KeyKind::click: click(key); break;
    case KeyKind::character:
    case KeyKind::backspace: break;
  }
}

bool State::press_in_columns(const Key& key) {
  const char32_t typed = key.kind == KeyKind::character ? key.character : 0;
  if (key.kind == KeyKind::up || typed == 'k') {
    chosen_column_ -= chosen_column_ > 0 ? 1 : 0;
  } else if (key.kind == KeyKind::down || typed == 'j') {
    chosen_column_ = std::min(chosen_column_ + 1, kColumns.size() - 1);
  } else if (key.kind == KeyKind::enter || typed == ' ') {
    bool& is_shown = view_.columns.at(chosen_column_);
    is_shown = chosen_column_ == static_cast<std::size_t>(Column::command) || !is_shown;
  } else {
    return false;
  }
  // Scrolls so that the chosen column is visible.
  const int rows = std::max(layout().pane_rows - 1, 1);
  const int chosen = static_cast<int>(chosen_column_);
  pane_scroll_ = std::clamp(pane_scroll_, std::max(chosen - rows + 1, 0), chosen);
  return true;
}

void State::click(const Key& key) {
  const Layout where = layout();
  if (const auto heading = where.heading_at(key.row, key.column)) sort_by(*heading);
  const auto row = where.table_row_at(key.row);
  if (row && top_ + static_cast<std::size_t>(*row) < rows_.rows.size())
    select(top_ + static_cast<std::size_t>(*row));
}

void State::move(long by) {
  const long last = static_cast<long>(rows_.rows.size()) - 1;
  select(static_cast<std::size_t>(
      std::clamp(static_cast<long>(selected_) + by, 0L, std::max(last, 0L))));
}

std::optional<std::size_t> State::row_of(const ProcessId& id) const {
  for (std::size_t row = 0; row < rows_.rows.size(); ++row)
    if (rows_.rows[row].id == id) return row;
  return std::nullopt;
}

void State::select(std::size_t row) {
  if (rows_.rows.empty()) return;
  has_selected_ = true;
  selected_ = std::min(row, rows_.rows.size() - 1);
  selected_id_ = rows_.rows[selected_].id;
  if (pane_ == Pane::details) scroll_pane(-pane_scroll_);
  keep_on_screen();
}

void State::sort_by(Column column) {
  if (view_.sort == column) return flip(view_.is_descending);
  view_.sort = column;
  view_.is_descending = column != Column::pid && column != Column::command;
  remake_rows();
}

void State::sort_by_neighbour(int step) {
  const auto columns = layout().columns;
  const auto now = std::ranges::find(columns, view_.sort, &PlacedColumn::column);
  const long last = static_cast<long>(columns.size()) - 1;
  const long index = now == columns.end() ? 0 : (now - columns.begin()) + step;
  const auto next = static_cast<std::size_t>(std::clamp(index, 0L, last));
  if (columns[next].column != view_.sort) sort_by(columns[next].column);
}

void State::collapse(bool collapsed) {
  if (!selected_process()) return;
  if (collapsed) view_.collapsed.insert(selected_id_);
  if (!collapsed) view_.collapsed.erase(selected_id_);
  remake_rows();
}

void State::search(bool forward, bool from_here) {
  const std::size_t count = rows_.rows.size();
  if (search_.empty() || count == 0) return;
  for (std::size_t i = from_here ? 0 : 1; i <= count; ++i) {
    const std::size_t row = (selected_ + (forward ? i : 2 * count - i)) % count;
    if (!is_named(model_.measurement.processes[rows_.rows[row].process], search_)) continue;
    select(row);
    return;
  }
}

void State::toggle(Pane pane) {
  pane_ = pane_ == pane ? Pane::none : pane;
  pane_scroll_ = 0;
  chosen_column_ = 0;
  keep_on_screen();
}

void State::scroll_pane(int by) {
  const int rows = layout().pane_rows - 1;
  const int step = pane_ == Pane::output ? -by : by;
  pane_scroll_ = std::clamp(pane_scroll_ + step, 0, std::max(pane_lines_ - rows, 0));
}

void State::flip(bool& of_view) {
  of_view = !of_view;
  remake_rows();
}

void State::remake_rows() {
  rows_ = rows_of(model_, view_);
  const auto same = has_selected_ ? row_of(selected_id_) : std::optional<std::size_t>(0);
  if (!rows_.rows.empty()) {
    selected_ = std::min(same.value_or(selected_), rows_.rows.size() - 1);
    selected_id_ = rows_.rows[selected_].id;
  }
  keep_on_screen();
}

void State::keep_on_screen() {
  const auto rows = static_cast<std::size_t>(std::max(layout().table_rows, 1));
  if (selected_ < top_) top_ = selected_;
  if (selected_ >= top_ + rows) top_ = selected_ - rows + 1;
  const std::size_t count = rows_.rows.size();
  top_ = std::min(top_, count > rows ? count - rows : 0);
}

}  // namespace cowshed::cowtop::live
