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
  // Where `automatic` had to settle for less: one line that says why, what is lacking and how to
  // get the rest.  Empty otherwise.
  std::string notice;
};

// Opens the named backend, or the best that works here: exact tracepoints, else /proc.
// `sampling` says how many copies to attribute to code (cow/copy_profile.h), which only tracepoints
// can: by default none; a buffer_bytes left as it is becomes one by CPUs and period.  Errors:
// permission_denied or unsupported when the named one cannot run here; unsupported when /proc is
// not mounted, or is another PID namespace's, where our processes have other numbers
// (pid_namespaces(7)).
Expected<OpenedBackend> open_backend(BackendChoice choice, const SamplingOptions& sampling = {});

}  // namespace cowshed::cow
