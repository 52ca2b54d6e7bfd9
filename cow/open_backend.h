#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <cowshed/base/error.h>
#include <cowshed/cow/backend.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

enum class BackendChoice : std::uint8_t { automatic, tracepoint, pagemap };

struct OpenedBackend {
  std::unique_ptr<Backend> backend;
  // One line if `automatic` chose the lesser backend: the reason, the missing figures and the
  // remedy. Else empty.
  std::string notice;
};

// Opens the named backend, or with `automatic` the best that works: exact tracepoints, else /proc.
// `sampling` sets how many copies are attributed to code (cow/copy_profile.h); only tracepoints can
// do that.  A default buffer_bytes is replaced by a size for the CPUs and the period.
// Errors: permission_denied or unsupported if the named backend cannot run here; unsupported if
// /proc is not mounted or belongs to another PID namespace (pid_namespaces(7)).
Expected<OpenedBackend> open_backend(BackendChoice choice, const SamplingOptions& sampling = {});

}  // namespace cowshed::cow
