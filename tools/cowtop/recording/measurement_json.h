#pragma once

#include <nlohmann/json.hpp>
#include <string>

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

// Returns the same report as JSON.  Its strings may contain bytes that are not UTF-8.
Json run_json(const cow::Measurement& measurement);

// Return the two parts of a recorded document, without fields that are computed from others: the
// measurement without its "processes", and one process.
Json recorded_head(const cow::Measurement& measurement);
Json recorded(const cow::ProcessCopies& process);

// Returns the JSON Patch from recorded(before), which lies at `path`, to recorded(after).
Json recorded_changes(const cow::ProcessCopies& before, const cow::ProcessCopies& after,
                      const std::string& path);

// Reads a report or a recorded document.  Errors: bad_recording, with the path of the wrong field.
Expected<cow::Measurement> measurement_of(const Json& json);

}  // namespace cowshed::cowtop
