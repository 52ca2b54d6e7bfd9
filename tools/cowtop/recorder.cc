#include <sys/utsname.h>
#include <thread>
#include <utility>

#include <cowshed/tools/cowtop/recorder.h>

namespace cowshed::cowtop {
namespace {

using std::chrono::steady_clock;

constexpr auto kInterval = std::chrono::seconds(1);
constexpr int kLeastPause = 49;  // times as long as an append took

RecordingHeader header_of(const MeasureOptions& options) {
  RecordingHeader header;
  header.cowtop = COWSHED_VERSION;
  header.command = options.command;
  if (options.selection) {
    header.selection = options.selection->text();
    const std::vector<pid_t>& pids = options.selection->pids;
    if (pids.size() == 1) header.attached_pid = pids.front();
  }
  utsname system{};
  if (::uname(&system) == 0) header.kernel = system.release;
  header.cpus = std::thread::hardware_concurrency();
  header.started_s =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  return header;
}

std::string line_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void add(Json& patch, Json operations) {
  for (Json& each : operations) patch.push_back(std::move(each));
}

}  // namespace

Expected<Recorder> Recorder::start(OutputFile file, const MeasureOptions& options) {
  Recorder recorder(std::move(file));
  recorder.file_.clear();
  const auto written =
      recorder.file_.append(recorder.encoder_.encode(line_of(to_json(header_of(options)))));
  if (!written) return tl::make_unexpected(written.error());
  return recorder;
}

Expected<void> Recorder::append(const cow::Measurement& measurement, Json line) {
  Json patch = Json::array();
  Json head = recorded_head(measurement);
  add(patch, Json::diff(head_, head));
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    if (i >= processes_.size()) {
      patch.push_back({{"op", "add"}, {"path", "/processes/-"}, {"value", recorded(process)}});
    } else if (process != processes_[i]) {
      add(patch, recorded_changes(processes_[i], process, "/processes/" + std::to_string(i)));
    }
  }
  line["patch"] = std::move(patch);
  auto written = file_.append(encoder_.encode(line_of(line)));
  if (!written) return written;
  head_ = std::move(head);
  processes_ = measurement.processes;
  return {};
}

Observer::Next Recorder::sampled(const cow::Backend& backend) {
  const auto begin = steady_clock::now();
  if (begin < next_) return Next::go_on;
  static_cast<void>(append(backend.measurement()));
  const auto end = steady_clock::now();
  next_ = std::max(begin + kInterval, end + kLeastPause * (end - begin));
  return Next::go_on;
}

Expected<void> Recorder::append(const cow::Measurement& measurement) {
  return append(measurement, Json::object());
}

Expected<void> Recorder::end(const cow::Measurement& measurement, int exit_status) {
  return append(measurement, Json{{"ended", true}, {"exit_status", exit_status}});
}

}  // namespace cowshed::cowtop
