#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include <cowshed/base/error.h>
#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

using Json = nlohmann::ordered_json;

// JSON as text: indented, or in one line.  Bytes that are not UTF-8, as in the name of a command,
// are replaced.
std::string text_of(const Json& json);
std::string line_of(const Json& json);

// Returns the report of --json as text: one JSON object, schema cowshed.run/2.
std::string json_report(const cow::Measurement& measurement);

// Returns the findings of the report alone (analysis/findings.h), as JSON.
Json findings_json(const cow::Measurement& measurement);

// Returns the same report as JSON.  Its strings may contain bytes that are not UTF-8.
Json run_json(const cow::Measurement& measurement);

// Return the two parts of a recorded document, without fields that are computed from others: the
// measurement without its "processes", and one process.
Json recorded_head(const cow::Measurement& measurement);
Json recorded(const cow::ProcessCopies& process);

// Make the JSON Patch from one state of these parts to another.  Call `add` with each operation, as
// JSON in one line.  The process before lies at `path`.
using AddOperation = std::function<void(std::string_view)>;
void recorded_head_changes(const cow::Measurement& before, const cow::Measurement& after,
                           const AddOperation& add);
void recorded_changes(const cow::ProcessCopies& before, const cow::ProcessCopies& after,
                      const std::string& path, const AddOperation& add);

// Reads a report or a recorded document.  Errors: bad_recording, with the path of the wrong field.
Expected<cow::Measurement> measurement_of(const Json& json);

}  // namespace cowshed::cowtop
