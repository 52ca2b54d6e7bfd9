#pragma once

#include <string>

#include <cowshed/base/error.h>
#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

struct MeasurementFile {
  cow::Measurement measurement;
  std::string note;  // one line if the recording is incomplete; else empty
};

// Reads a recording, as far as possible, or a JSON report (cowshed.run/2).  Errors: those of
// InputFile; bad_recording.
Expected<MeasurementFile> read_measurement(const std::string& path);

}  // namespace cowshed::cowtop
