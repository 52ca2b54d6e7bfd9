#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include <cowshed/base/error.h>
#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

using Json = nlohmann::ordered_json;

// For people's programs to read, or in one line.  What is no UTF-8, as a command's name may be, is
// replaced.
std::string text_of(const Json& json);
std::string line_of(const Json& json);

// One JSON object for people's programs to read, schema cowshed.run/2.
std::string json_report(const cow::Measurement& measurement);

// The same as an object, whose strings may yet be no UTF-8.
Json run_json(const cow::Measurement& measurement);

// The same without what is computed from other fields, in two parts: a measurement without its
// "processes", and one of these.
Json recorded_head(const cow::Measurement& measurement);
Json recorded(const cow::ProcessCopies& process);

// The JSON Patch that makes `after`, as recorded, of `before`, which lies at `path`.
Json recorded_changes(const cow::ProcessCopies& before, const cow::ProcessCopies& after,
                      const std::string& path);

// The measurement of which either was made.  Errors: bad_recording, with the field that is not as
// it should be.
Expected<cow::Measurement> measurement_of(const Json& json);

}  // namespace cowshed::cowtop
