#pragma once

#include <string>

#include <cowshed/base/error.h>
#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

struct MeasurementFile {
  cow::Measurement measurement;
  std::string note;  // one line where it is not whole; empty where it is
};

// Of a recording, as far as it can be read, or of a JSON report (cowshed.run/2).  Errors: those of
// the file; bad_recording.
Expected<MeasurementFile> read_measurement(const std::string& path);

}  // namespace cowshed::cowtop
