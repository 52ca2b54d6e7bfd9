#pragma once

#include <optional>
#include <string>
#include <vector>

#include <cowshed/tools/cowtop/live/model/columns.h>
#include <cowshed/tools/cowtop/live/model/rows.h>
#include <cowshed/tools/cowtop/live/terminal/surface.h>

namespace cowshed::cowtop::live {

inline constexpr Size kLeastSize = {10, 40};

struct PlacedColumn {
  Column column;
  int begin = 0;
  int width = 0;
};

// The rows of the screen, from the top: the header, the headings of the columns, the table, the
// pane, the status line.
struct Layout {
  Size size;
  int heading_row = 0;
  int table_rows = 0;
  int pane_row = 0;   // its title
  int pane_rows = 0;  // with the title; 0: no pane
  std::vector<PlacedColumn> columns;

  bool is_too_small() const {
    return size.rows < kLeastSize.rows || size.columns < kLeastSize.columns;
  }
  int first_row() const { return heading_row + 1; }
  int status_row() const { return size.rows - 1; }
  std::optional<Column> heading_at(int row, int column) const;
  // Returns the row of the table; nullopt: `row` is elsewhere.
  std::optional<int> table_row_at(int row) const;
};

enum class PaneSize : std::uint8_t { none, half, all };

Layout layout_of(Size size, int header_rows, PaneSize pane, const View& view);

// Joins the parts by two spaces into as few lines as possible.  It never breaks a part.
std::vector<std::string> header_lines(const std::vector<std::string>& parts, int columns);

}  // namespace cowshed::cowtop::live
