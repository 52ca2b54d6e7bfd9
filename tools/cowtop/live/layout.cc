#include <algorithm>

#include <cowshed/tools/cowtop/live/layout.h>
#include <cowshed/tools/cowtop/text/display_width.h>

namespace cowshed::cowtop::live {

std::optional<Column> Layout::heading_at(int row, int column) const {
  if (row != heading_row || table_rows == 0) return std::nullopt;
  for (const PlacedColumn& each : columns)
    if (column >= each.begin && column <= each.begin + each.width) return each.column;
  return std::nullopt;
}

std::optional<int> Layout::table_row_at(int row) const {
  if (row < first_row() || row >= first_row() + table_rows) return std::nullopt;
  return row - first_row();
}

Layout layout_of(Size size, int header_rows, PaneSize pane, const View& view) {
  constexpr int kLeastForBoth = 16;
  Layout layout;
  layout.size = size;
  layout.heading_row = header_rows;
  const int body = size.rows - header_rows - 1;  // all between the header and the status
  if (pane == PaneSize::half && body < kLeastForBoth) pane = PaneSize::all;
  layout.pane_rows = pane == PaneSize::none ? 0 : pane == PaneSize::all ? body : body * 3 / 5;
  layout.pane_rows = std::max(layout.pane_rows, 0);
  layout.pane_row = size.rows - 1 - layout.pane_rows;
  layout.table_rows = std::max(body - layout.pane_rows - 1, 0);

  // Always shows the command, and as many other columns as fit.
  const int most = size.columns - info(Column::command).width;
  int begin = 1;  // beside the mark of the selected row
  for (std::size_t i = 0; i < static_cast<std::size_t>(Column::command); ++i) {
    if (!view.columns.at(i)) continue;
    const int width = kColumns.at(i).width;
    if (begin + width + 1 > most) break;
    layout.columns.push_back({static_cast<Column>(i), begin, width});
    begin += width + 1;
  }
  layout.columns.push_back({Column::command, begin, std::max(size.columns - begin, 0)});
  return layout;
}

std::vector<std::string> header_lines(const std::vector<std::string>& parts, int columns) {
  std::vector<std::string> lines;
  for (const std::string& part : parts) {
    if (part.empty()) continue;
    if (!lines.empty() && columns_of(lines.back()) + 2 + columns_of(part) <= columns)
      lines.back() += "  " + part;
    else lines.push_back(part);
  }
  return lines;
}

}  // namespace cowshed::cowtop::live
