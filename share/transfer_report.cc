#include <algorithm>
#include <array>
#include <unistd.h>

#include <cowshed/share/transfer_report.h>
#include <cowshed/share/transfer_table.h>

namespace cowshed {
namespace {

template <std::size_t size>
std::string text(const std::array<char, size>& field) {
  return {field.begin(), std::find(field.begin(), field.end(), '\0')};
}

TransferSource& source_of(std::vector<TransferSource>& sources, const std::string& origin,
                          const std::string& name) {
  const auto known = std::find_if(sources.begin(), sources.end(), [&](const auto& each) {
    return each.origin == origin && each.name == name;
  });
  if (known != sources.end()) {
    return *known;
  }
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
  for (CountedTransfer& counted : counted_transfers()) {
    const auto& [what, count, messages_looked_into, paths] = counted;
    TransferSource& source = source_of(report.sources, text(what.origin), text(what.name));
    TransferredType& type = source.types.emplace_back();
    type.type = text(what.type);
    type.kind = what.kind;
    type.sent = {count.messages, count.objects, count.bytes};
    type.messages_looked_into = messages_looked_into;
    type.paths = std::move(counted.paths);
    std::stable_sort(type.paths.begin(), type.paths.end(),
                     [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
    totals_of(source, what.kind) += type.sent;
  }
  for (TransferSource& source : report.sources) {
    std::stable_sort(source.types.begin(), source.types.end(),
                     [](const auto& a, const auto& b) { return a.sent.bytes > b.sent.bytes; });
  }
  std::stable_sort(report.sources.begin(), report.sources.end(), [](const auto& a, const auto& b) {
    return a.by_value.bytes > b.by_value.bytes;
  });
  return report;
}

}  // namespace cowshed
