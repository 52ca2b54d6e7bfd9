#include <cowshed/cow/backend.h>
#include <cowshed/cow/pagemap_backend.h>
#include <cowshed/cow/tracepoint_backend.h>

namespace cowshed::cow {

Expected<OpenedBackend> open_backend(BackendChoice choice, const SamplingOptions& sampling) {
  OpenedBackend opened;
  if (choice != BackendChoice::pagemap) {
    auto tracepoint = TracepointBackend::open(sampling);
    if (tracepoint) {
      opened.backend = std::move(*tracepoint);
      return opened;
    }
    if (choice == BackendChoice::tracepoint) return tl::make_unexpected(tracepoint.error());
    opened.notice = tracepoint.error().message +
                    "; using the pagemap backend instead, which is sampled: it counts pages that "
                    "are no longer shared, whoever copied them, and misses processes that live for "
                    "less than a sample";
    if (sampling.period != 0) opened.notice += "; code sites are not known";
  }
  opened.backend = std::make_unique<PagemapBackend>();
  return opened;
}

}  // namespace cowshed::cow
