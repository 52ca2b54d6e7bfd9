#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>

#include <cowshed/share/transfer_report.h>

namespace cowshed {
namespace {

std::string bytes_text(std::uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto amount = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (amount >= 1024 && unit + 1 < kUnits.size()) {
    amount /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s", amount,
                kUnits.at(unit));
  return text.data();
}

// Names may be anything, and must not reach the terminal as orders.
std::string printable(std::string_view name) {
  std::string text(name);
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return std::iscntrl(c) != 0; }, '?');
  return text;
}

// Lines of cells; the last one of a line is as long as it likes.
template <std::size_t columns>
class Table {
 public:
  using Row = std::array<std::string, columns>;

  // From the first `left` cells on, cells are numbers.
  Table(std::size_t left, Row headings) : left_(left), rows_{std::move(headings)} {}
  void add(Row row) { rows_.push_back(std::move(row)); }
  bool empty() const { return rows_.size() == 1; }

  std::string text() const {
    std::array<std::size_t, columns> widths{};
    for (const Row& row : rows_) {
      for (std::size_t i = 0; i < columns; ++i) {
        widths[i] = std::max(widths[i], row[i].size());
      }
    }
    std::string result;
    for (const Row& row : rows_) {
      for (std::size_t i = 0; i + 1 < columns; ++i) {
        const std::string pad(widths[i] - row[i].size(), ' ');
        result += (i < left_ ? row[i] + pad : pad + row[i]) + "  ";
      }
      result += row[columns - 1] + "\n";
    }
    return result;
  }

 private:
  std::size_t left_;
  std::vector<Row> rows_;
};

std::string heading(const TransferReport& report) {
  TransferTotals value;
  TransferTotals reference;
  TransferTotals moved;
  TransferTotals results;
  for (const TransferSource& source : report.sources) {
    if (source.origin == "result") {
      results += source.by_value;
      continue;
    }
    value += source.by_value;
    reference += source.by_reference;
    moved += source.moved;
  }
  return "PID " + std::to_string(report.pid) + " has sent " + bytes_text(value.bytes) +
         " by value, " + bytes_text(reference.bytes) + " by reference, " + bytes_text(moved.bytes) +
         " moved" +
         (results.objects != 0 ? ", and has been returned " + bytes_text(results.bytes) : "") +
         "\n";
}

std::string paths_text(const TransferSource& source, const TransferredType& type,
                       std::size_t most) {
  Table<3> table(0, {"OBJECTS", "BYTES", "TYPE PATH"});
  for (std::size_t i = 0; i < std::min(most, type.paths.size()); ++i) {
    const TypePath& path = type.paths[i];
    table.add({std::to_string(path.objects), bytes_text(path.bytes), printable(path.path)});
  }
  if (table.empty()) {
    return "";
  }
  std::string text = "\nin " + std::to_string(type.messages_looked_into) + " of " +
                     std::to_string(type.sent.messages) + " messages through " + source.origin +
                     " '" + printable(source.name) + "':\n" + table.text();
  if (type.paths.size() > most) {
    text += "... and " + std::to_string(type.paths.size() - most) + " more, all smaller\n";
  }
  return text;
}

}  // namespace

std::string to_table(const TransferReport& report, std::size_t most_paths) {
  Table<7> table(3, {"ORIGIN", "NAME", "SENT BY", "MESSAGES", "OBJECTS", "BYTES", "TYPE"});
  std::string paths;
  for (const TransferSource& source : report.sources) {
    for (const TransferredType& type : source.types) {
      table.add({source.origin, printable(source.name), std::string(to_string(type.kind)),
                 std::to_string(type.sent.messages), std::to_string(type.sent.objects),
                 bytes_text(type.sent.bytes), printable(type.type)});
      paths += paths_text(source, type, most_paths);
    }
  }
  return heading(report) + (table.empty() ? "" : table.text()) + paths;
}

}  // namespace cowshed
