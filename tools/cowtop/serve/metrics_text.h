#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <cowshed/tools/cowtop/serve/metrics.h>

namespace cowshed::cowtop {

// OpenMetrics 1.0, or the older text format of Prometheus.
enum class MetricsFormat : std::uint8_t { openmetrics, prometheus };

// Returns the format that an HTTP request wants, by its header Accept.
MetricsFormat wanted_format(std::string_view accept);

const char* content_type(MetricsFormat format);

std::string metrics_text(const Metrics& metrics, MetricsFormat format);

}  // namespace cowshed::cowtop
