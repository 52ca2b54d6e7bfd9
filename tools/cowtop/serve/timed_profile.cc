#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/measure/measure.h>
#include <cowshed/tools/cowtop/report/pprof_report.h>
#include <cowshed/tools/cowtop/serve/timed_profile.h>

namespace cowshed::cowtop {

Expected<std::string> timed_profile(const Selection& selection, cow::BackendChoice choice,
                                    std::chrono::seconds time, int stop_fd) {
  using std::chrono::steady_clock;
  using std::chrono::system_clock;
  MeasureOptions options;
  options.sampling = usual_sampling();
  TRY(auto selected, SelectedProcesses::open(selection));
  TRY(const auto opened, cow::open_backend(choice, options.sampling));
  cow::Backend& backend = *opened.backend;
  const auto attached = selected.attach(backend);
  if (!attached && !selected.grows()) return tl::make_unexpected(attached.error());
  const auto started = system_clock::now().time_since_epoch();
  const auto end = steady_clock::now() + time;
  do {
    TRY_VOID(backend.sample());
    bound_ended(options, backend);
    TRY_VOID(selected.attach_new(backend));
    wait_for_event(stop_fd, -1, backend, nullptr);
  } while (steady_clock::now() < end && !internal::is_ready(stop_fd));
  TRY_VOID(backend.sample());
  return pprof_report(backend.measurement(), std::chrono::duration<double>(started).count());
}

}  // namespace cowshed::cowtop
