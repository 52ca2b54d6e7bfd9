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

// Where on the screen everything is, from the top: the header, the columns' headings, the table,
// the pane, a line of status.
struct Layout {
  Size size;
  int header_rows = 0;
  int heading_row = 0;
  int table_rows = 0;
  int pane_row = 0;   // its title
  int pane_rows = 0;  // with it; 0: there is none
  std::vector<PlacedColumn> columns;

  bool is_too_small() const {
    return size.rows < kLeastSize.rows || size.columns < kLeastSize.columns;
  }
  int first_row() const { return heading_row + 1; }
  int status_row() const { return size.rows - 1; }
  std::optional<Column> heading_at(int row, int column) const;
  // Of the table's rows on the screen.
  std::optional<int> table_row_at(int row) const;
};

enum class PaneSize : std::uint8_t { none, half, all };

Layout layout_of(Size size, int header_rows, PaneSize pane, const View& view);

// The parts, two spaces between them, on as few lines as they fit on; a part is never broken.
std::vector<std::string> header_lines(const std::vector<std::string>& parts, int columns);

}  // namespace cowshed::cowtop::live
