#include <nlohmann/json.hpp>

#include <cowshed/tools/cowtop/verdict_json.h>

namespace cowshed::cowtop {

using Json = nlohmann::ordered_json;

namespace {

Json json_of(const Culprit& culprit) {
  Json object = {{"kind", name_of(culprit.kind)},
                 {"name", culprit.name},
                 {"bytes", culprit.bytes},
                 {"estimated", culprit.is_estimate}};
  if (!culprit.file.empty()) {
    object["file"] = culprit.file;
    object["line"] = culprit.line;
  }
  return object;
}

Json json_of(const Held& held) {
  Json object = {{"limit", name_of(held.limit)}, {"over", held.is_over()}};
  if (held.limit == Limit::object) object["object"] = held.object;
  if (held.pid) {
    object["pid"] = *held.pid;
    object["comm"] = held.comm;
    object["child"] = held.number;
  }
  object["limit_bytes"] = held.limit_bytes;
  object["used_bytes"] = held.used_bytes ? Json(*held.used_bytes) : Json(nullptr);
  if (!held.used_bytes) object["not_known"] = held.why_not_known;
  if (held.limit == Limit::ratio || held.limit == Limit::growth) object["of_bytes"] = held.of_bytes;
  object["culprits"] = Json::array();
  for (const Culprit& culprit : held.culprits) object["culprits"].push_back(json_of(culprit));
  return object;
}

}  // namespace

std::string verdict_json(const Verdict& verdict) {
  Json report = {{"schema", "cowshed.check/1"},
                 {"verdict", verdict.is_over()              ? "over"
                             : verdict.not_measured.empty() ? "within"
                                                            : "not_measured"},
                 {"held", Json::array()},
                 {"not_measured", verdict.not_measured},
                 {"notes", verdict.notes}};
  for (const Held& held : verdict.held) report["held"].push_back(json_of(held));
  // A command's name may hold any bytes.
  return report.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace cowshed::cowtop
