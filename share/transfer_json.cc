#include <nlohmann/json.hpp>

#include <cowshed/share/transfer_report.h>

namespace cowshed {
namespace {

using Json = nlohmann::ordered_json;

Json totals(const TransferTotals& sent) {
  return {{"messages", sent.messages}, {"objects", sent.objects}, {"bytes", sent.bytes}};
}

Json paths_of(const TransferredType& type) {
  if (type.messages_looked_into == 0) {
    return nullptr;
  }
  Json paths = Json::array();
  for (const TypePath& path : type.paths) {
    paths.push_back({{"path", path.path},
                     {"objects", path.objects},
                     {"bytes", path.bytes},
                     {"own_bytes", path.own_bytes}});
  }
  return paths;
}

Json type_object(const TransferredType& type) {
  Json object = {{"type", type.type}, {"kind", to_string(type.kind)}};
  object.update(totals(type.sent));
  object["messages_looked_into"] = type.messages_looked_into;
  object["paths"] = paths_of(type);
  return object;
}

Json source_object(const TransferSource& source) {
  Json object = {{"origin", source.origin},
                 {"name", source.name},
                 {"by_value", totals(source.by_value)},
                 {"by_reference", totals(source.by_reference)},
                 {"moved", totals(source.moved)},
                 {"inherited", totals(source.inherited)},
                 {"types", Json::array()}};
  for (const TransferredType& type : source.types) {
    object["types"].push_back(type_object(type));
  }
  return object;
}

}  // namespace

std::string to_json(const TransferReport& report) {
  Json object = {{"schema", "cowshed.transfer/1"}, {"pid", report.pid}, {"sources", Json::array()}};
  for (const TransferSource& source : report.sources) {
    object["sources"].push_back(source_object(source));
  }
  return object.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace cowshed
