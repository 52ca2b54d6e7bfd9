#pragma once

#include <array>
#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include <cowshed/tools/cowtop/live/model/columns.h>

namespace cowshed::cowtop::live {

// What of a model is shown, and in which order.
struct View {
  bool is_tree = true;
  Column sort = Column::copied;
  bool is_descending = true;
  std::string filter;             // shown: whose name or PID contains it; in a tree, their parents
  std::set<ProcessId> collapsed;  // their descendants are not shown
  bool shows_all_ended = false;   // else those that ended lately, unless all have
  std::array<bool, kColumns.size()> columns = usual_columns();

  static std::array<bool, kColumns.size()> usual_columns();
};

struct Row {
  std::size_t process = 0;  // its index in the measurement
  ProcessId id;
  // Of a tree, below the root: for each level, whether more follow; the last is its own.
  std::vector<bool> branches;
  std::size_t folded = 0;  // descendants that are not shown because it is collapsed
};

struct Rows {
  std::vector<Row> rows;
  std::size_t ended_hidden = 0;
};

// Whether its name or its PID contains the text.
bool is_named(const cow::ProcessCopies& process, const std::string& text);

Rows rows_of(const Model& model, const View& view);

}  // namespace cowshed::cowtop::live
