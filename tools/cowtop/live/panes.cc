#include <algorithm>
#include <fmt/format.h>
#include <sstream>

#include <cowshed/tools/cowtop/live/panes.h>
#include <cowshed/tools/cowtop/report/table_report.h>
#include <cowshed/tools/cowtop/report/text_report.h>
#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop::live {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> wrapped(const std::vector<std::string>& lines, int columns) {
  std::vector<std::string> result;
  for (const std::string& line : lines) {
    if (line.starts_with(' ')) {  // a line with a layout of its own
      result.push_back(line);
      continue;
    }
    for (std::string& part : wrap(line, columns)) result.push_back(std::move(part));
  }
  return result;
}

std::string summary(const cow::ProcessCopies& process, const cow::ForkCopies& copies) {
  std::string text = mib(copies.copied_bytes()) + " copied";
  if (copies.shared_bytes) {
    text += fmt::format(" of {} shared at its fork ({})", mib(copies.shared_bytes),
                        percent(copies.copied_ratio()));
  }
  return breakable(text) +
         fmt::format(
             "; all copied pages: {} anonymous, {} of files; not copied: {} reused, {} over "
             "zero, {} first touched",
             count(process.copied_anon_pages), count(process.copied_file_pages),
             count(process.reused_pages), count(process.zero_page_writes),
             count(process.zero_filled_pages));
}

std::vector<std::string> detail_lines(const State& state, int columns) {
  const cow::ProcessCopies* process = state.selected_process();
  if (!process) return {"no process is selected"};
  auto lines = wrapped({summary(*process, state.model().copies.at(process->id()))}, columns);
  const cow::Measurement& measurement = state.model().measurement;
  for (std::string& line :
       wrapped(lines_of(advice_on(measurement, *process) + process_report(measurement, *process)),
               columns)) {
    lines.push_back(std::move(line));
  }
  return lines;
}

std::vector<std::string> column_lines(const State& state) {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < kColumns.size(); ++i) {
    const ColumnInfo& column = kColumns.at(i);
    lines.push_back(fmt::format("{} [{}] {:<12} {}", i == state.chosen_column() ? '>' : ' ',
                                state.has_column(static_cast<Column>(i)) ? 'x' : ' ', column.title,
                                column.meaning));
  }
  return lines;
}

std::vector<std::string> help_lines(int columns) {
  std::vector<std::string> lines = {
      "Space p     pause: the screen stays, the measurement goes on",
      "Left Right  collapse, expand the selected process",
      "l           what the command has written",
      "w           the report so far: what was copied, why, and what to TRY",
      "Up Down j k PgUp PgDn g G, the mouse    select a process",
      "Enter       all about the selected process; PgUp PgDn scroll there",
      "t           tree, or all processes in one order",
      "x           collapse or expand the selected process",
      "< > r       sort by the column to the left, to the right; reverse (or click)",
      "o           choose columns",
      "f           only processes whose name or PID contains a text",
      "/ n N       search: the next, the one before",
      "a           all ended processes, or those of the last 10 s",
      "Esc         close this; then, show all whatever the filter",
      "q           quit",
      "",
      "The columns:"};
  for (const ColumnInfo& column : kColumns)
    if (column.count == nullptr)
      lines.push_back(fmt::format("{:<12} {}", column.title, column.meaning));
  lines.emplace_back("others       counts: see cowtop --help");
  lines.emplace_back("-           not known to the backend, or not recorded");
  return wrapped(lines, columns);
}

std::vector<std::string> output_lines(const State& state, int columns) {
  if (state.source().output.empty()) return {"the command has written nothing"};
  std::vector<std::string> lines;
  for (std::string line : lines_of(state.source().output)) {
    std::ranges::replace(line, '\t', ' ');
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(printable(line));
  }
  return wrapped(lines, columns);
}

}  // namespace

std::string pane_title(const State& state) {
  switch (state.pane()) {
    case Pane::details: {
      const cow::ProcessCopies* process = state.selected_process();
      if (!process) return "details";
      return fmt::format("PID {} {}{}, {}, child of {}", process->pid, printable(process->name()),
                         and_more(*process), ending(*process), process->ppid);
    }
    case Pane::columns: return "columns: Space shows or hides";
    case Pane::output: return "what the command has written";
    case Pane::report: return "the report so far";
    case Pane::help: return "help";
    case Pane::none: break;
  }
  return {};
}

std::vector<std::string> pane_lines(const State& state, int columns) {
  switch (state.pane()) {
    case Pane::details: return detail_lines(state, columns);
    case Pane::columns: return column_lines(state);
    case Pane::output: return output_lines(state, columns);
    case Pane::report: return wrapped(lines_of(text_report(state.model().measurement)), columns);
    case Pane::help: return help_lines(columns);
    case Pane::none: break;
  }
  return {};
}

int pane_height(const State& state) {
  return static_cast<int>(pane_lines(state, state.layout().size.columns).size());
}

}  // namespace cowshed::cowtop::live
