#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/base/clock.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tools/cowtop/serve/metrics_text.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

std::string escaped(std::string_view text) {
  std::string result;
  for (const char each : text) {
    if (each == '\\' || each == '"') result += '\\';
    result += each == '\n' ? "\\n" : std::string(1, each);
  }
  return result;
}

// One without a value is written as none, which is the same.
using Labels = std::vector<std::pair<const char*, std::string_view>>;

Labels labels_of(const std::string& comm, const Place& place, const Labels& further = {}) {
  Labels labels = {
      {"comm", comm}, {"cgroup", place.cgroup}, {"container", place.container}, {"pod", place.pod}};
  labels.insert(labels.end(), further.begin(), further.end());
  return labels;
}

class Writer {
 public:
  explicit Writer(MetricsFormat format) : format_(format) {}

  // `unit` is the last word of the name, or empty.
  void counter(const char* name, const char* unit, const char* help) {
    const bool is_open = format_ == MetricsFormat::openmetrics;
    begin(is_open ? name : name + std::string("_total"), "counter", unit, help);
    sample_ = name + std::string("_total");
  }
  void gauge(std::string_view name, const char* unit, const std::string& help) {
    begin(std::string(name), "gauge", unit, help);
    sample_ = name;
  }
  void histogram(const char* name, const char* unit, const char* help) {
    begin(name, "histogram", unit, help);
    family_ = name;
  }
  void part(const char* name) { sample_ = family_ + name; }  // of a histogram
  void info(const char* name, const char* help) {
    const bool is_open = format_ == MetricsFormat::openmetrics;
    sample_ = name + std::string("_info");
    begin(is_open ? name : sample_, is_open ? "info" : "gauge", "", help);
  }
  template <class Value>
  void sample(const Labels& labels, Value value) {
    text_ += sample_;
    char separator = '{';
    for (const auto& [name, label] : labels)
      if (!label.empty())
        text_ += fmt::format("{}{}=\"{}\"", std::exchange(separator, ','), name, escaped(label));
    if (separator == ',') text_ += '}';
    text_ += fmt::format(" {}\n", value);
  }
  std::string end() {
    if (format_ == MetricsFormat::openmetrics) text_ += "# EOF\n";
    return std::move(text_);
  }

 private:
  void begin(const std::string& family, const char* type, std::string_view unit,
             const std::string& help) {
    text_ += fmt::format("# TYPE {} {}\n", family, type);
    if (!unit.empty() && format_ == MetricsFormat::openmetrics)
      text_ += fmt::format("# UNIT {} {}\n", family, unit);
    text_ += fmt::format("# HELP {} {}\n", family, escaped(help));
  }

  MetricsFormat format_;
  std::string family_;
  std::string sample_;
  std::string text_;
};

void write_forks(Writer& writer, const std::vector<CommandMetrics>& commands) {
  constexpr double kNsPerSecond = 1e9;
  constexpr std::uint64_t kFirst = 1U << 16U;  // ns
  constexpr std::uint64_t kFactor = 4;
  constexpr std::uint64_t kLast = std::uint64_t{1} << 32U;
  writer.histogram("cowshed_fork_seconds", "seconds", "How long forks took that succeeded.");
  for (const CommandMetrics& command : commands) {
    if (!command.fork_costs) continue;
    const ForkCosts& costs = *command.fork_costs;
    const auto bucket = [&](const std::string& bound, std::uint64_t ns) {
      std::uint64_t forks = 0;
      for (const ForkCosts::Duration& each : costs.durations)
        forks += each.ns < ns ? each.forks : 0;
      writer.sample(labels_of(command.comm, command.place, {{"le", bound}}), forks);
    };
    writer.part("_bucket");
    for (std::uint64_t ns = kFirst; ns <= kLast; ns *= kFactor)
      bucket(fmt::format("{}", static_cast<double>(ns) / kNsPerSecond), ns);
    bucket("+Inf", UINT64_MAX);
    writer.part("_count");
    writer.sample(labels_of(command.comm, command.place), costs.forks());
    writer.part("_sum");
    writer.sample(labels_of(command.comm, command.place),
                  static_cast<double>(costs.total_ns) / kNsPerSecond);
  }
  writer.counter("cowshed_failed_forks", "forks", "Forks that failed, by their error.");
  for (const CommandMetrics& command : commands)
    for (const ForkCosts::Failure& each : command.fork_costs.value_or(ForkCosts()).failures) {
      const std::string error = errno_name(each.error);
      writer.sample(labels_of(command.comm, command.place, {{"error", error}}), each.forks);
    }
}

void write_commands(Writer& writer, const std::vector<CommandMetrics>& commands) {
  const auto each = [&](auto value) {
    for (const CommandMetrics& command : commands) {
      const std::optional<std::uint64_t> known = value(command);
      if (known) writer.sample(labels_of(command.comm, command.place), *known);
    }
  };
  writer.counter("cowshed_copied_bytes", "bytes",
                 "Memory shared by a fork that write faults copied.");
  each([](const CommandMetrics& command) {
    return command.copied_pages ? std::optional(*command.copied_pages * cow::kPageSize)
                                : std::nullopt;
  });
  writer.counter(
      "cowshed_written_pages", "pages",
      "Pages by what the fault did that wrote to them first; copied_anon and copied_file "
      "are copies.");
  for (const CommandMetrics& command : commands) {
    for (std::size_t i = 0; i < cow::kCounts.size(); ++i) {
      const char* kind = cow::kCounts.at(i).kind;
      if (!command.pages.at(i) || *kind == '\0') continue;
      writer.sample(labels_of(command.comm, command.place, {{"kind", kind}}), *command.pages.at(i));
    }
  }
  write_forks(writer, commands);
  writer.counter(
      "cowshed_oom_kills", "",
      "Processes that the kernel killed for want of memory; the sampled backend guesses.");
  each([](const CommandMetrics& command) { return std::optional(command.oom_kills); });
  writer.gauge("cowshed_processes", "", "Measured processes that are running.");
  each([](const CommandMetrics& command) { return std::optional(command.running.processes); });
  for (std::size_t i = 0; i < cow::kFigures.size(); ++i) {
    const cow::Figure& figure = cow::kFigures.at(i);
    if (figure.metric.empty()) continue;
    writer.gauge(figure.metric, "bytes", "Of running processes: " + std::string(figure.meaning));
    each([&](const CommandMetrics& command) { return command.running.figures.at(i); });
  }
  writer.gauge("cowshed_pss_processes", "",
               "Running processes whose memory is in cowshed_pss_bytes; the others were not read "
               "yet.");
  each([](const CommandMetrics& command) { return std::optional(command.running.pss_processes); });
}

// Returns the q of parameters such as "version=1.0.0; q=0.5".
double quality(std::string_view parameters) {
  const auto found = parameters.find("q=");
  if (found == std::string_view::npos) return 1;
  return std::strtod(std::string(parameters.substr(found + 2)).c_str(), nullptr);
}

std::string_view trimmed(std::string_view text) {
  const auto begin = std::min(text.find_first_not_of(" \t"), text.size());
  text.remove_prefix(begin);
  return text.substr(0, text.find_last_not_of(" \t") + 1);
}

}  // namespace

MetricsFormat wanted_format(std::string_view accept) {
  double open = 0;
  double plain = 0;
  while (!accept.empty()) {
    const auto comma = std::min(accept.find(','), accept.size());
    const std::string_view range = accept.substr(0, comma);
    accept.remove_prefix(std::min(comma + 1, accept.size()));
    const auto semicolon = std::min(range.find(';'), range.size());
    const std::string_view type = trimmed(range.substr(0, semicolon));
    const double wanted = quality(range.substr(semicolon));
    if (type == "application/openmetrics-text") open = std::max(open, wanted);
    if (type == "text/plain" || type == "text/*") plain = std::max(plain, wanted);
  }
  return open > 0 && open >= plain ? MetricsFormat::openmetrics : MetricsFormat::prometheus;
}

const char* content_type(MetricsFormat format) {
  return format == MetricsFormat::openmetrics
             ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
             : "text/plain; version=0.0.4; charset=utf-8";
}

std::string metrics_text(const Metrics& metrics, MetricsFormat format) {
  Writer writer(format);
  writer.info("cowshed_backend", "How it is measured; exact or sampled.");
  writer.sample({{"backend", metrics.backend},
                 {"exact", metrics.exact ? "true" : "false"},
                 {"version", COWSHED_VERSION}},
                1);
  write_commands(writer, metrics.commands);
  writer.counter(
      "cowshed_object_copied_bytes", "bytes",
      "Memory of published objects in frozen arenas that was copied, as seen by samples.");
  for (const ObjectMetrics& object : metrics.objects) {
    writer.sample(
        labels_of(object.comm, object.place, {{"arena", object.arena}, {"object", object.object}}),
        object.copied_pages * cow::kPageSize);
  }
  if (metrics.lost_events) {
    writer.counter("cowshed_lost_events", "", "Events that were lost; exact while it is 0.");
    writer.sample({}, *metrics.lost_events);
  }
  if (metrics.not_seen) {
    writer.counter("cowshed_unseen_processes", "",
                   "Processes that ended before they were looked at, at least.");
    writer.sample({}, *metrics.not_seen);
  }
  if (metrics.probe_cpu_s) {
    writer.counter("cowshed_probe_cpu_seconds", "seconds",
                   "CPU time that the probes took of the measured processes, estimated.");
    writer.sample({}, *metrics.probe_cpu_s);
  }
  writer.gauge("cowshed_last_sample_timestamp_seconds", "seconds", "When it was last measured.");
  writer.sample({}, fmt::format("{:.3f}", metrics.sampled_s));
  constexpr double kNsPerSecond = 1e9;
  writer.counter("process_cpu_seconds", "seconds", "CPU time that cowtop itself has used.");
  writer.sample({}, static_cast<double>(clock_ns(CLOCK_PROCESS_CPUTIME_ID)) / kNsPerSecond);
  writer.gauge("process_resident_memory_bytes", "bytes", "Resident memory of cowtop itself.");
  const auto own = cow::ProcFiles().stat(::getpid());
  writer.sample({}, own ? own->resident_pages * cow::kPageSize : 0);
  return writer.end();
}

}  // namespace cowshed::cowtop
