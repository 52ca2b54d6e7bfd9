#pragma once

#include <array>
#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include <cowshed/tools/cowtop/live/model/columns.h>

namespace cowshed::cowtop::live {

// The shown part of a model, and its order.
struct View {
  bool is_tree = true;
  Column sort = column_of("COPIED");
  bool is_descending = true;
  std::string filter;             // part of a name or PID; a tree shows the parents, too
  std::set<ProcessId> collapsed;  // their descendants are hidden
  bool shows_all_ended = false;   // else only recent ones, unless all have ended
  std::array<bool, kColumns.size()> columns = usual_columns();

  static std::array<bool, kColumns.size()> usual_columns();
};

struct Row {
  std::size_t process = 0;  // its index in the measurement
  ProcessId id;
  // In a tree, for each level below the root: whether siblings follow; the last is its own level.
  std::vector<bool> branches;
  std::size_t folded = 0;  // descendants hidden because it is collapsed
};

struct Rows {
  std::vector<Row> rows;
  std::size_t ended_hidden = 0;
};

// Whether the name or the PID of the process contains the text.
bool is_named(const cow::ProcessCopies& process, const std::string& text);

Rows rows_of(const Model& model, const View& view);

}  // namespace cowshed::cowtop::live
