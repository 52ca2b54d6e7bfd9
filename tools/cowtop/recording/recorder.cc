#include <algorithm>
#include <malloc.h>
#include <map>
#include <set>
#include <sys/utsname.h>
#include <thread>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/recording/recorder.h>

namespace cowshed::cowtop {
namespace {

using std::chrono::steady_clock;

constexpr auto kInterval = std::chrono::seconds(1);
constexpr auto kLongestInterval = std::chrono::seconds(2);
constexpr int kLeastPause = 399;  // times the duration of an append

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

// A line with a JSON Patch.  It compresses each operation at once: with thousands of operations
// this takes a hundredth of the memory.
class PatchLine {
 public:
  explicit PatchLine(ZstdLineEncoder& encoder) : encoder_(encoder) { encoder_.add("{\"patch\":["); }
  void add_line(std::string_view operation) {
    if (!is_first_) encoder_.add(",");
    encoder_.add(operation);
    is_first_ = false;
  }
  void add(const Json& operation) { add_line(line_of(operation)); }
  std::string take(const Json& rest) {
    std::string end = "]";
    for (const auto& [name, value] : rest.items())
      end += "," + line_of(name) + ":" + line_of(value);
    encoder_.add(end + "}");
    return encoder_.take();
  }

 private:
  ZstdLineEncoder& encoder_;
  bool is_first_ = true;
};

// The parts of a measurement that CodeOf::none() lacks.
struct TakenCode {
  struct OfProcess {
    std::optional<cow::SampledCopies> sampled;
    std::optional<std::vector<cow::CopyPattern>> patterns;
  };
  std::optional<cow::SampledCopies> sampled;
  std::optional<cow::NewMemory> new_memory;
  std::map<cow::ProcessId, OfProcess> processes;
};

TakenCode take_code(cow::Measurement& measurement) {
  TakenCode code{
      std::exchange(measurement.sampled, {}), std::exchange(measurement.new_memory, {}), {}};
  for (cow::ProcessCopies& process : measurement.processes) {
    code.processes[process.id()] = {std::exchange(process.sampled, {}),
                                    std::exchange(process.patterns, {})};
  }
  return code;
}

void put_code(TakenCode code, cow::Measurement& measurement) {
  measurement.sampled = std::move(code.sampled);
  measurement.new_memory = std::move(code.new_memory);
  for (cow::ProcessCopies& process : measurement.processes) {
    const auto found = code.processes.find(process.id());
    if (found == code.processes.end()) continue;
    process.sampled = std::move(found->second.sampled);
    process.patterns = std::move(found->second.patterns);
  }
}

// Adds the removal of processes that are not in `measurement` any more.  Returns the others.
std::vector<const cow::ProcessCopies*> remove_merged(PatchLine& patch,
                                                     const std::vector<cow::ProcessCopies>& before,
                                                     const cow::Measurement& measurement) {
  std::set<cow::ProcessId> listed;
  for (const cow::ProcessCopies& process : measurement.processes) listed.insert(process.id());
  std::vector<const cow::ProcessCopies*> left;
  for (std::size_t i = before.size(); i-- > 0;)
    if (listed.contains(before[i].id())) left.push_back(&before[i]);
    else patch.add(Json{{"op", "remove"}, {"path", "/processes/" + std::to_string(i)}});
  std::ranges::reverse(left);
  return left;
}

}  // namespace

steady_clock::time_point next_append(steady_clock::time_point begin, steady_clock::time_point end) {
  const auto took = end - begin;
  const auto latest = std::max(begin + kLongestInterval, end + took);
  return std::clamp(end + kLeastPause * took, begin + kInterval, latest);
}

Expected<Recorder> Recorder::start(OutputFile file, const MeasureOptions& options) {
  TRY_VOID(file.lock());
  Recorder recorder(std::move(file));
  recorder.header_ = recorder.encoder_.encode(line_of(to_json(header_of(options))));
  if (recorder.file_.holds_something()) return recorder;
  TRY_VOID(recorder.begin());
  return recorder;
}

Expected<void> Recorder::begin() {
  if (header_.empty()) return {};
  file_.clear();
  auto written = file_.append(header_);
  if (written) header_.clear();
  return written;
}

Expected<void> Recorder::write(const cow::Measurement& measurement, const Json& rest) {
  TRY_VOID(begin());
  PatchLine patch(encoder_);
  const AddOperation add = [&](std::string_view operation) { patch.add_line(operation); };
  if (written_) recorded_head_changes(*written_, measurement, add);
  else
    for (const Json& each : Json::diff(Json::object(), recorded_head(measurement))) patch.add(each);
  static const std::vector<cow::ProcessCopies> none;
  const std::vector<const cow::ProcessCopies*> left =
      remove_merged(patch, written_ ? written_->processes : none, measurement);
  auto before = left.begin();
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    const std::string path = "/processes/" + std::to_string(i);
    if (before == left.end() || (*before)->id() != process.id()) {
      const bool is_last = before == left.end();
      patch.add(Json{
          {"op", "add"}, {"path", is_last ? "/processes/-" : path}, {"value", recorded(process)}});
      continue;
    }
    recorded_changes(**before, process, path, add);
    ++before;
  }
  for (; before != left.end(); ++before) {
    const std::string path = "/processes/" + std::to_string(measurement.processes.size());
    patch.add(Json{{"op", "remove"}, {"path", path}});
  }
  return file_.append(patch.take(rest));
}

void Recorder::sampled(const cow::Backend& backend) {
  const auto begin = steady_clock::now();
  if (begin < next_) return;
  const bool has_code = !written_ || code_pace_.is_due(monotonic_ns());
  const std::uint64_t cpu_begin = thread_cpu_ns();
  cow::Measurement measurement =
      backend.measurement(has_code ? cow::CodeOf::all() : cow::CodeOf::none());
  const bool is_sampled = measurement.sampling.has_value();
  tell_news_of(has_code ? append(std::move(measurement)) : append_counts(std::move(measurement)));
  if (has_code && is_sampled) {
    ::malloc_trim(0);
    code_pace_.ran(monotonic_ns(), thread_cpu_ns() - cpu_begin);
  }
  next_ = next_append(begin, steady_clock::now());
}

void Recorder::tell_news_of(const Expected<void>& written) {
  if (written.has_value() != is_refused_) return;
  is_refused_ = !written;
  complain(written ? file_.path() + " can be written again, and has what was missed"
                   : written.error().message + "; tried again until the measurement ends");
}

Expected<void> Recorder::append(cow::Measurement measurement) {
  auto written = write(measurement, Json::object());
  if (written) written_ = std::move(measurement);
  return written;
}

Expected<void> Recorder::append_counts(cow::Measurement measurement) {
  TakenCode code = take_code(*written_);
  auto written = append(std::move(measurement));
  put_code(std::move(code), *written_);
  return written;
}

Expected<void> Recorder::end(const cow::Measurement& measurement, int exit_status) {
  auto written = write(measurement, Json{{"ended", true}, {"exit_status", exit_status}});
  if (written) tell_news_of(written);
  else written.error().message += "; the recording has no end";
  return written;
}

}  // namespace cowshed::cowtop
