#include <algorithm>
#include <charconv>
#include <cstdint>
#include <functional>
#include <map>
#include <protozero/pbf_builder.hpp>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>
#include <zlib.h>

#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/fork_copies.h>
#include <cowshed/tools/cowtop/analysis/shares.h>
#include <cowshed/tools/cowtop/report/pprof_report.h>
#include <cowshed/tools/cowtop/text/container.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

// The fields of https://github.com/google/pprof/blob/main/proto/profile.proto that are written.
namespace tag {
enum class Profile : protozero::pbf_tag_type {
  sample_type = 1,
  sample = 2,
  mapping = 3,
  location = 4,
  function = 5,
  string_table = 6,
  time_nanos = 9,
  duration_nanos = 10,
  period_type = 11,
  period = 12,
  default_sample_type = 14,
};
enum class ValueType : protozero::pbf_tag_type { type = 1, unit = 2 };
enum class Sample : protozero::pbf_tag_type { location_id = 1, value = 2, label = 3 };
enum class Label : protozero::pbf_tag_type { key = 1, str = 2, num = 3 };
enum class Mapping : protozero::pbf_tag_type {
  id = 1,
  filename = 5,
  has_functions = 7,
  has_filenames = 8,
  has_line_numbers = 9,
  has_inline_frames = 10,
};
enum class Location : protozero::pbf_tag_type { id = 1, mapping_id = 2, line = 4 };
enum class Line : protozero::pbf_tag_type { function_id = 1, line = 2 };
enum class Function : protozero::pbf_tag_type { id = 1, name = 2, system_name = 3, filename = 4 };
}  // namespace tag

constexpr const char* kNotSampled = "[not sampled]";
constexpr const char* kBeforeExec = "[copied before exec]";
constexpr const char* kFurtherStacks = "[further stacks]";
constexpr const char* kWithoutFault = "[no write fault]";

std::string compressed(const std::string& bytes) {
  constexpr int kGzip = 16;  // beside the size of the window
  constexpr int kMemory = 8;
  z_stream stream{};
  ::deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, MAX_WBITS + kGzip, kMemory,
                 Z_DEFAULT_STRATEGY);
  std::string result(::deflateBound(&stream, bytes.size()), '\0');
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast,cppcoreguidelines-pro-type-const-cast)
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast)
  stream.next_out = reinterpret_cast<Bytef*>(result.data());
  stream.avail_out = static_cast<uInt>(result.size());
  ::deflate(&stream, Z_FINISH);
  result.resize(stream.total_out);
  ::deflateEnd(&stream);
  return result;
}

// The frames of a folded stack.  It has names alone: the rest is known of frames of sites.
class FrameFinder {
 public:
  // Frames that it lacks are those of `further`, which may be nullptr.
  explicit FrameFinder(const FrameFinder* further = nullptr) : further_(further) {}

  void add(const std::vector<cow::CodeSite>& sites) {
    for (const cow::CodeSite& site : sites) {
      for (const cow::Frames* frames : {&site.stack, &site.frames})
        for (const cow::Frame& frame : *frames) add(frame);
      std::string folded = site.truncated ? "[callers not seen]" : "";
      for (std::size_t i = site.stack.size(); i-- > 0;)
        folded += (folded.empty() ? "" : ";") + cow::folded_text(site.stack[i]);
      stacks_.try_emplace(std::move(folded), site.stack);
    }
  }

  // Innermost first.
  std::vector<cow::Frame> frames(const std::string& folded) const {
    std::vector<cow::Frame> result;
    std::string_view rest = folded;
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find(';'), rest.size());
      result.push_back(frame(std::string(rest.substr(0, end))));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    std::ranges::reverse(result);
    // With the lines of a whole stack that is known.
    for (const FrameFinder* each = this; each != nullptr; each = each->further_) {
      const auto known = each->stacks_.find(folded);
      if (known == each->stacks_.end()) continue;
      std::ranges::copy(known->second, result.begin());
      break;
    }
    return result;
  }

 private:
  void add(cow::Frame frame) {
    if (!frame.is_python) frame.line = 0;  // one function has many
    frame.address = 0;
    frames_.try_emplace(cow::folded_text(frame), std::move(frame));
  }
  cow::Frame frame(const std::string& text) const {
    if (const auto found = frames_.find(text); found != frames_.end()) return found->second;
    if (further_ != nullptr) return further_->frame(text);
    cow::Frame frame;
    frame.function = text;
    // As cow::python_text() returns it: "total (pool.py:4)".
    const auto file = text.rfind(" (");
    const auto line = text.rfind(':');
    if (file == text.npos || line == text.npos || line < file || !text.ends_with(')')) return frame;
    const char* const end = text.data() + text.size() - 1;
    int number = 0;
    if (std::from_chars(text.data() + line + 1, end, number).ptr != end) return frame;
    frame.function = text.substr(0, file);
    frame.file = text.substr(file + 2, line - file - 2);
    frame.line = number;
    return frame;
  }

  const FrameFinder* further_;
  std::map<std::string, cow::Frame> frames_;
  std::map<std::string, cow::Frames> stacks_;
};

std::vector<cow::Frame> frame_alone(const char* name) {
  cow::Frame frame;
  frame.function = name;
  return {std::move(frame)};
}

// The labels of a sample; empty or 0: none.
struct Labels {
  std::string process;
  pid_t pid = 0;
  std::string container;
  std::string pod;
  std::string cause;
  std::string object;
};

class ProfileWriter {
 public:
  ProfileWriter() : profile_(bytes_) {
    text("");
    for (const auto& [type, unit] :
         {std::pair("copied", "bytes"), std::pair("copied_pages", "pages"),
          std::pair("new", "bytes"), std::pair("new_pages", "pages")})
      add_type(tag::Profile::sample_type, type, unit);
    profile_.add_int64(tag::Profile::default_sample_type, text("copied"));
  }

  void times(double started_s, double duration_s) {
    constexpr double kNsPerSecond = 1e9;
    profile_.add_int64(tag::Profile::time_nanos,
                       static_cast<std::int64_t>(started_s * kNsPerSecond));
    profile_.add_int64(tag::Profile::duration_nanos,
                       static_cast<std::int64_t>(duration_s * kNsPerSecond));
  }
  void period(std::uint32_t pages) {
    add_type(tag::Profile::period_type, "copied_pages", "pages");
    profile_.add_int64(tag::Profile::period, pages);
  }

  void sample(const std::vector<cow::Frame>& stack, std::uint64_t copied_pages,
              std::uint64_t new_pages, const Labels& labels) {
    std::vector<std::uint64_t> locations;
    locations.reserve(stack.size());
    for (const cow::Frame& frame : stack) locations.push_back(location(frame));
    protozero::pbf_builder<tag::Sample> sample(profile_, tag::Profile::sample);
    sample.add_packed_uint64(tag::Sample::location_id, locations.begin(), locations.end());
    std::vector<std::int64_t> values;
    for (const std::uint64_t pages : {copied_pages, new_pages}) {
      values.push_back(static_cast<std::int64_t>(pages * cow::kPageSize));
      values.push_back(static_cast<std::int64_t>(pages));
    }
    sample.add_packed_int64(tag::Sample::value, values.begin(), values.end());
    const auto add_label = [&](const char* key, const std::string& value) {
      if (value.empty()) return;
      protozero::pbf_builder<tag::Label> label(sample, tag::Sample::label);
      label.add_int64(tag::Label::key, text(key));
      label.add_int64(tag::Label::str, text(value));
    };
    add_label("process", labels.process);
    if (labels.pid != 0) {
      protozero::pbf_builder<tag::Label> label(sample, tag::Sample::label);
      label.add_int64(tag::Label::key, text("pid"));
      label.add_int64(tag::Label::num, labels.pid);
    }
    add_label("container", labels.container);
    add_label("pod", labels.pod);
    add_label("cause", labels.cause);
    add_label("object", labels.object);
  }

  std::string end() && {
    for (const std::string* each : texts_) profile_.add_string(tag::Profile::string_table, *each);
    return compressed(bytes_);
  }

 private:
  std::int64_t text(const std::string& value) {
    const auto [found, is_new] =
        text_numbers_.try_emplace(value, static_cast<std::int64_t>(texts_.size()));
    if (is_new) texts_.push_back(&found->first);
    return found->second;
  }
  void add_type(tag::Profile field, const char* type, const char* unit) {
    const std::int64_t type_number = text(type);
    const std::int64_t unit_number = text(unit);
    protozero::pbf_builder<tag::ValueType> value(profile_, field);
    value.add_int64(tag::ValueType::type, type_number);
    value.add_int64(tag::ValueType::unit, unit_number);
  }
  std::uint64_t mapping(const std::string& file) {
    if (file.empty()) return 0;
    const auto [found, is_new] = mappings_.try_emplace(file, mappings_.size() + 1);
    if (is_new) {
      const std::int64_t name = text(file);
      protozero::pbf_builder<tag::Mapping> mapping(profile_, tag::Profile::mapping);
      mapping.add_uint64(tag::Mapping::id, found->second);
      mapping.add_int64(tag::Mapping::filename, name);
      // So that pprof looks up no names of its own.
      for (const auto known : {tag::Mapping::has_functions, tag::Mapping::has_filenames,
                               tag::Mapping::has_line_numbers, tag::Mapping::has_inline_frames})
        mapping.add_bool(known, true);
    }
    return found->second;
  }
  std::uint64_t function(const std::string& name, const std::string& file, bool is_native) {
    const auto [found, is_new] =
        functions_.try_emplace(std::pair(name, file), functions_.size() + 1);
    if (is_new) {
      const std::int64_t name_number = text(name);
      const std::int64_t file_number = text(file);
      protozero::pbf_builder<tag::Function> function(profile_, tag::Profile::function);
      function.add_uint64(tag::Function::id, found->second);
      function.add_int64(tag::Function::name, name_number);
      // A name that is also the system's is one to demangle: pprof drops what is in <>.
      if (is_native) function.add_int64(tag::Function::system_name, name_number);
      function.add_int64(tag::Function::filename, file_number);
    }
    return found->second;
  }
  std::uint64_t location(const cow::Frame& frame) {
    // Text of the measured programs.
    const std::string name =
        printable(frame.function.empty() ? cow::folded_text(frame) : frame.function);
    const std::uint64_t of_mapping = mapping(printable(frame.module));
    const std::uint64_t of_function =
        function(name, printable(frame.file), !frame.is_python && !frame.function.empty());
    const auto [found, is_new] =
        locations_.try_emplace({of_mapping, of_function, frame.line}, locations_.size() + 1);
    if (is_new) {
      protozero::pbf_builder<tag::Location> location(profile_, tag::Profile::location);
      location.add_uint64(tag::Location::id, found->second);
      location.add_uint64(tag::Location::mapping_id, of_mapping);
      protozero::pbf_builder<tag::Line> line(location, tag::Location::line);
      line.add_uint64(tag::Line::function_id, of_function);
      line.add_int64(tag::Line::line, frame.line);
    }
    return found->second;
  }

  std::string bytes_;
  protozero::pbf_builder<tag::Profile> profile_;
  std::vector<const std::string*> texts_;
  std::map<std::string, std::int64_t> text_numbers_;
  std::map<std::string, std::uint64_t> mappings_;
  std::map<std::pair<std::string, std::string>, std::uint64_t> functions_;
  std::map<std::tuple<std::uint64_t, std::uint64_t, int>, std::uint64_t> locations_;
};

// Calls back with the part of `pages` for each weight.  The parts add up to `pages`; false: there
// is no weight.
bool spread(std::uint64_t pages, const std::vector<double>& weights,
            const std::function<void(std::size_t, std::uint64_t)>& callback) {
  double all = 0;
  for (const double weight : weights) all += weight;
  if (all <= 0) return false;
  double before = 0;
  std::uint64_t pages_before = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    before += weights[i];
    const auto end = before >= all
                         ? pages
                         : static_cast<std::uint64_t>(static_cast<double>(pages) * (before / all));
    if (end > pages_before) callback(i, end - pages_before);
    pages_before = std::max(pages_before, end);
  }
  return true;
}

Labels labels_of(const cow::ProcessCopies& process) {
  const Container container = container_of(process.cgroup);
  const pid_t pid = process.processes == 1 ? process.pid : 0;
  return {printable(process.comm), pid, container.id, container.pod, "", ""};
}

// What each stack has of COPIED: not those at the program's end, and of relocations only what is no
// first write to a file.
std::vector<double> weights_of(const cow::ProcessCopies& process, const cow::ForkCopies& copies) {
  std::uint64_t relocated = 0;
  for (const cow::FoldedStack& stack : process.sampled->stacks)
    if (stack.cause == cow::kRelocation) relocated += stack.estimated_copies;
  const std::uint64_t of_files = first_writes_to_files(process, copies) / cow::kPageSize;
  const double kept = relocated == 0
                          ? 1
                          : static_cast<double>(relocated - std::min(relocated, of_files)) /
                                static_cast<double>(relocated);
  std::vector<double> weights;
  for (const cow::FoldedStack& stack : process.sampled->stacks) {
    const double part = stack.cause == cow::kProgramExit  ? 0
                        : stack.cause == cow::kRelocation ? kept
                                                          : 1;
    weights.push_back(part * static_cast<double>(stack.estimated_copies));
  }
  return weights;
}

void add_copies(ProfileWriter& profile, const FrameFinder& of_all,
                const cow::ProcessCopies& process, const cow::ForkCopies& copies) {
  const std::uint64_t copied = copies.written_pages;
  if (copied == 0) return;
  Labels labels = labels_of(process);
  const auto without_stack = [&](const char* why) {
    profile.sample(frame_alone(why), copied, 0, labels);
  };
  if (!process.sampled) return without_stack(kNotSampled);
  if (!explains_copies(process, copies)) return without_stack(kBeforeExec);
  FrameFinder frames(&of_all);
  frames.add(process.sampled->sites);
  const bool any =
      spread(copied, weights_of(process, copies), [&](std::size_t i, std::uint64_t pages) {
        const cow::FoldedStack& stack = process.sampled->stacks[i];
        labels.cause = printable(stack.cause);
        labels.object = printable(stack.object);
        profile.sample(frames.frames(stack.folded), pages, 0, labels);
      });
  if (!any) without_stack(kNotSampled);
}

void add_new_memory(ProfileWriter& profile, const FrameFinder& frames,
                    const cow::Measurement& measurement,
                    const std::vector<cow::ForkCopies>& copies) {
  std::uint64_t all = 0;
  std::vector<std::uint64_t> faulted;  // pages of each process
  for (std::size_t i = 0; i < copies.size(); ++i) {
    const std::uint64_t rest = copies[i].unfaulted_bytes;
    faulted.push_back((copies[i].new_bytes.value_or(0) - rest) / cow::kPageSize);
    all += faulted.back();
    if (rest > 0)
      profile.sample(frame_alone(kWithoutFault), 0, rest / cow::kPageSize,
                     labels_of(measurement.processes[i]));
  }
  std::vector<cow::FoldedStack> stacks;
  if (measurement.new_memory) {
    stacks = measurement.new_memory->stacks;
    std::uint64_t pages = 0;
    for (const cow::NewCause& cause : measurement.new_memory->causes)
      pages += cause.estimated_copies;
    for (const cow::FoldedStack& stack : stacks) pages -= std::min(pages, stack.estimated_copies);
    stacks.push_back({kFurtherStacks, 0, pages});
  }
  std::vector<double> weights;
  for (const cow::FoldedStack& stack : stacks)
    weights.push_back(static_cast<double>(stack.estimated_copies));
  const bool any = spread(all, weights, [&](std::size_t i, std::uint64_t pages) {
    Labels labels;
    labels.cause = printable(stacks[i].cause);
    profile.sample(frames.frames(stacks[i].folded), 0, pages, labels);
  });
  if (any) return;
  for (std::size_t i = 0; i < copies.size(); ++i)
    if (faulted[i] > 0)
      profile.sample(frame_alone(kNotSampled), 0, faulted[i], labels_of(measurement.processes[i]));
}

}  // namespace

std::string pprof_report(const cow::Measurement& measurement, double started_s) {
  ProfileWriter profile;
  profile.times(started_s, measurement.duration_s);
  if (measurement.sampling) profile.period(measurement.sampling->period);
  FrameFinder frames;
  if (measurement.sampled) frames.add(measurement.sampled->sites);
  const std::vector<cow::ForkCopies> copies = cow::fork_copies(measurement);
  for (std::size_t i = 0; i < copies.size(); ++i)
    add_copies(profile, frames, measurement.processes[i], copies[i]);
  if (measurement.new_memory) frames.add(measurement.new_memory->sites);
  add_new_memory(profile, frames, measurement, copies);
  return std::move(profile).end();
}

}  // namespace cowshed::cowtop
