#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <functional>
#include <unistd.h>

#include <cowshed/base/exception_text.h>
#include <cowshed/share/process/published_layout.h>
#include <cowshed/share/transfer_report.h>

namespace cowshed {
namespace {

TransferSource& source_of(std::vector<TransferSource>& sources, const std::string& origin,
                          const std::string& name) {
  const auto known = std::ranges::find_if(
      sources, [&](const auto& each) { return each.origin == origin && each.name == name; });
  if (known != sources.end()) return *known;
  TransferSource& source = sources.emplace_back();
  source.origin = origin;
  source.name = name;
  return source;
}

TransferTotals& totals_of(TransferSource& source, TransferKind kind) {
  switch (kind) {
    case TransferKind::reference: return source.by_reference;
    case TransferKind::moved: return source.moved;
    case TransferKind::inherited: return source.inherited;
    default: return source.by_value;
  }
}

std::string bytes_text(std::uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  const auto bits = static_cast<std::size_t>(std::bit_width(bytes | 1U));
  const std::size_t unit = std::min<std::size_t>((bits - 1) / 10, 4);
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s",
                std::ldexp(static_cast<double>(bytes), -10 * static_cast<int>(unit)), kUnits[unit]);
  return text.data();
}

// Rows of cells.  Columns 4 to 6 are numbers.
constexpr std::size_t kColumns = 7;
using Table = std::vector<std::array<std::string, kColumns>>;

std::string text_of(const Table& table) {
  std::array<std::size_t, kColumns> widths{};
  for (const auto& row : table)
    for (std::size_t i = 0; i < kColumns; ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string result;
  for (const auto& row : table) {
    for (std::size_t i = 0; i + 1 < kColumns; ++i) {
      const std::string pad(widths[i] - row[i].size(), ' ');
      result += (i < 3 ? row[i] + pad : pad + row[i]) + "  ";
    }
    result += row.back() + "\n";
  }
  return result;
}

std::string heading(const TransferReport& report) {
  TransferTotals value;
  TransferTotals reference;
  TransferTotals moved;
  TransferTotals results;
  for (const TransferSource& source : report.sources) {
    (source.origin == "result" ? results : value) += source.by_value;
    reference += source.by_reference;
    moved += source.moved;
  }
  return "PID " + std::to_string(report.pid) + " has sent " + bytes_text(value.bytes) +
         " by value, " + bytes_text(reference.bytes) + " by reference, " + bytes_text(moved.bytes) +
         " moved" +
         (results.objects != 0 ? ", and has been returned " + bytes_text(results.bytes) : "") +
         "\n";
}

}  // namespace

TransferTotals& TransferTotals::operator+=(const TransferTotals& other) {
  messages += other.messages;
  objects += other.objects;
  bytes += other.bytes;
  return *this;
}

TransferReport transfer_report() {
  TransferReport report;
  report.pid = getpid();
  for (const auto& [what, count] : internal::counted_transfers()) {
    TransferSource& source =
        source_of(report.sources, layout::text_of(what.origin), layout::text_of(what.name));
    TransferredType& type = source.types.emplace_back();
    type.type = layout::text_of(what.type);
    type.kind = TransferKind{what.kind};
    type.sent = {count.messages, count.objects, count.bytes};
    totals_of(source, type.kind) += type.sent;
  }
  for (TransferSource& source : report.sources) {
    std::ranges::stable_sort(source.types, std::greater(),
                             [](const auto& type) { return type.sent.bytes; });
  }
  std::ranges::stable_sort(report.sources, std::greater(),
                           [](const auto& source) { return source.by_value.bytes; });
  return report;
}

std::string to_table(const TransferReport& report) {
  Table table = {{"ORIGIN", "NAME", "SENT BY", "MESSAGES", "OBJECTS", "BYTES", "TYPE"}};
  for (const TransferSource& source : report.sources) {
    for (const TransferredType& type : source.types) {
      table.push_back({source.origin, internal::one_line(source.name),
                       std::string(to_string(type.kind)), std::to_string(type.sent.messages),
                       std::to_string(type.sent.objects), bytes_text(type.sent.bytes),
                       internal::one_line(type.type)});
    }
  }
  return heading(report) + (table.size() > 1 ? text_of(table) : "");
}

}  // namespace cowshed
