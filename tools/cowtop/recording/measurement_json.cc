#include <optional>
#include <string_view>
#include <utility>

#include <cowshed/cow/process_tree.h>
#include <cowshed/tools/cowtop/recording/json_fields.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/text/figures.h>

// Beside the types: json_fields.h finds them by argument-dependent lookup.
namespace cowshed::cow {

template <class Io, class T>
using Ref = typename std::remove_reference_t<Io>::template Ref<T>;

static std::string name_of(Role role) { return role == Role::root ? "root" : "child"; }

static bool from_name(const std::string& name, Role& role) {
  role = name == "root" ? Role::root : Role::child;
  return name == name_of(role);
}

static void describe(auto& io, Ref<decltype(io), ArenaCopies> arena) {
  io.field("name", arena.name);
  io.field("bytes", arena.bytes);
  io.field("copied_pages", arena.copied_pages);
}

static void describe(auto& io, Ref<decltype(io), ObjectCopies> object) {
  io.field("name", object.name);
  io.field("type", object.type);
  io.field("arena", object.arena);
  io.field("copied_pages", object.copied_pages);
}

static void describe(auto& io, Ref<decltype(io), SentObjects> sent) {
  io.field("origin", sent.origin);
  io.field("name", sent.name);
  io.field("type", sent.type);
  io.field("kind", sent.kind);
  io.field("messages", sent.messages);
  io.field("objects", sent.objects);
  io.field("bytes", sent.bytes);
}

static void describe(auto& io, Ref<decltype(io), Frame> frame) {
  io.field("function", frame.function);
  io.field("file", frame.file);
  io.field("line", frame.line);
  io.field("module", frame.module);
  io.field("address", frame.address);
  io.field("inlined", frame.inlined);
}

template <class Io>
static void describe(Io& io, Ref<Io, CodeSite> site) {
  io.field("samples", site.samples);
  io.field("estimated_copies", site.estimated_copies);
  if constexpr (Io::kReads) {
    std::vector<Frame> frames;
    std::vector<Frame> stack;
    io.field("frames", frames);
    io.field("stack", stack);
    site.frames = std::move(frames);
    site.stack = std::move(stack);
  } else {
    io.field("frames", site.frames.all());
    io.field("stack", site.stack.all());
  }
  io.field("truncated", site.truncated);
}

static void describe(auto& io, Ref<decltype(io), MappingCopies> mapping) {
  io.field("name", mapping.name);
  io.field("samples", mapping.samples);
  io.field("estimated_copies", mapping.estimated_copies);
}

static void describe(auto& io, Ref<decltype(io), RangeCopies> range) {
  io.field("begin", range.begin);
  io.field("end", range.end);
  io.field("mapping", range.mapping);
  io.field("samples", range.samples);
  io.field("estimated_copies", range.estimated_copies);
}

static void describe(auto& io, Ref<decltype(io), FoldedStack> stack) {
  io.field("folded", stack.folded);
  io.field("samples", stack.samples);
  io.field("estimated_copies", stack.estimated_copies);
}

// What is estimated from samples: fields of what was sampled, all null where nothing was.
template <class Io>
static void describe_sampled(Io& io, Ref<Io, std::optional<SampledCopies>> sampled) {
  const auto field = [&](const char* name, auto member) {
    if constexpr (Io::kReads) {
      std::optional<std::decay_t<decltype(SampledCopies().*member)>> value;
      io.field(name, value);
      if (value) (sampled ? *sampled : sampled.emplace()).*member = std::move(*value);
    } else {
      io.field_if(name, sampled ? &((*sampled).*member) : nullptr);
    }
  };
  field("samples", &SampledCopies::samples);
  field("sites", &SampledCopies::sites);
  field("mappings", &SampledCopies::mappings);
  field("ranges", &SampledCopies::ranges);
  field("stacks", &SampledCopies::stacks);
}

static void describe(auto& io, Ref<decltype(io), SamplingSummary> sampling) {
  io.field("period", sampling.period);
  io.field("emitted", sampling.emitted);
  io.field("received", sampling.received);
  io.field("lost", sampling.lost);
  io.field("unread", sampling.unread);
}

static void describe(auto& io, Ref<decltype(io), CopyPattern> pattern) {
  io.field("pattern", pattern.pattern);
  io.field("share", pattern.share);
  io.field("samples", pattern.samples);
  io.field("evidence", pattern.evidence);
}

static void describe(auto& io, Ref<decltype(io), MemorySample> memory) {
  io.field("shared_bytes", memory.shared_bytes);
  io.field("private_bytes", memory.private_bytes);
  io.field("sampled_ns", memory.sampled_ns);
}

static void describe(auto& io, Ref<decltype(io), ProcessesNotSeen> not_seen) {
  io.field("at_least", not_seen.at_least);
  io.field("at_most", not_seen.at_most);
}

static void describe(auto& io, Ref<decltype(io), Overhead> overhead) {
  io.field("events", overhead.events);
  io.field("ns_per_event", overhead.ns_per_event);
}

template <class Io>
static void describe(Io& io, Ref<Io, ProcessCopies> process) {
  if (Io::kReads || process.processes != 1) io.field("processes", process.processes);
  if (process.processes == 0) throw cowtop::JsonFieldError("/processes: none in a sum of them");
  io.field("pid", process.pid);
  io.field("ppid", process.ppid);
  io.field("comm", process.comm);
  io.field("role", process.role);
  io.field("alive", process.alive);
  io.field("start_ns", process.start_ns);
  io.field("end_ns", process.end_ns);
  io.field("exit_status", process.exit_status);
  io.field("signal", process.signal);
  io.field("shares_memory", process.shares_memory);
  if constexpr (Io::kReads) {
    std::optional<std::string> not_measured;
    io.field("not_measured", not_measured);
    process.not_measured = not_measured.value_or("");
  } else {
    io.field_if("not_measured", process.not_measured.empty() ? nullptr : &process.not_measured);
  }
  io.field("shared_at_fork_bytes", process.shared_at_fork_bytes);
  io.derived("copied_pages", process.copied_pages());
  io.derived("copied_bytes", process.copied_bytes());
  io.derived("copied_ratio", process.copied_ratio());
  io.field("copied_anon_pages", process.copied_anon_pages);
  io.field("copied_file_pages", process.copied_file_pages);
  io.field("reused_pages", process.reused_pages);
  io.field("zero_page_writes", process.zero_page_writes);
  io.field("zero_filled_pages", process.zero_filled_pages);
  io.field("huge_splits", process.huge_splits);
  io.field("collapsed_pages", process.collapsed_pages);
  io.field("write_notify_faults", process.write_notify_faults);
  io.field("failed_faults", process.failed_faults);
  io.field("other_faults", process.other_faults);
  io.field("memory", process.memory);
  io.field("unreadable", process.unreadable);
  io.field("execs", process.execs);
  io.field("copied_pages_before_exec", process.copied_pages_before_exec);
  io.field("arenas", process.arenas);
  io.field("patterns", process.patterns);
  // Sampled, by either backend; not there where no sample found any.
  if (Io::kReads || process.objects) {
    io.field("objects", process.objects);
    io.derived("objects_sampled", true);
  }
  describe_sampled<Io>(io, process.sampled);
  if (Io::kReads || process.transfers) {
    io.field("transfers", process.transfers);
    io.derived("transfers_sampled", true);
  }
}

// Without its processes.
template <class Io>
static void describe(Io& io, Ref<Io, Measurement> measurement) {
  io.field("backend", measurement.backend);
  io.field("exact", measurement.exact);
  io.field("duration_s", measurement.duration_s);
  io.field("taken_ns", measurement.taken_ns);
  io.field("lost_events", measurement.lost_events);
  io.field("unsure_faults", measurement.unsure_faults);
  io.field("not_seen", measurement.not_seen);
  io.field("overhead", measurement.overhead);
  io.field("sampling", measurement.sampling);
  if (Io::kReads || measurement.sampled) describe_sampled<Io>(io, measurement.sampled);
}

}  // namespace cowshed::cow

namespace cowshed::cowtop {
namespace {

using Derived = FieldWriter::Derived;
constexpr const char* kRunSchema = "cowshed.run/2";
constexpr const char* kOlderRunSchema = "cowshed.run/1";  // with fields more

struct Field {
  std::string_view name;
  const void* value;  // of whatever type describe() has for the name; nullptr where there is none
};

// What FieldWriter would write without derived fields, and where it is.
class FieldLister {
 public:
  template <class T>
  using Ref = const T&;
  static constexpr bool kReads = false;

  explicit FieldLister(const cow::ProcessCopies& process) {
    fields_.reserve(kUsualFields);
    describe(*this, process);
  }

  template <class T>
  void field(const char* name, const T& value) {
    fields_.push_back({name, &value});
  }
  template <class T>
  void field_if(const char* name, const T* value) {
    fields_.push_back({name, value});
  }
  template <class T>
  void derived(const char* /*name*/, const T& /*value*/) {}

  const std::vector<Field>& fields() const { return fields_; }

 private:
  static constexpr std::size_t kUsualFields = 48;
  std::vector<Field> fields_;
};

// The operations of a JSON patch that make one process of another.  JSON is made only of what has
// changed: of thousands of processes each second that is what it costs.
class FieldComparer {
 public:
  template <class T>
  using Ref = const T&;
  static constexpr bool kReads = false;

  FieldComparer(const cow::ProcessCopies& before, const cow::ProcessCopies& after,
                const std::string& path)
      : before_(before), path_(path) {
    describe(*this, after);
    has_same_fields_ = has_same_fields_ && next_ == before_.fields().size();
  }

  template <class T>
  void field(const char* name, const T& value) {
    field_if(name, &value);
  }
  template <class T>
  void field_if(const char* name, const T* value) {
    has_same_fields_ =
        has_same_fields_ && next_ < before_.fields().size() && before_.fields()[next_].name == name;
    if (!has_same_fields_) return;
    const auto* before = static_cast<const T*>(before_.fields()[next_].value);
    ++next_;
    if (before == nullptr && value == nullptr) return;
    if (before != nullptr && value != nullptr && *before == *value) return;
    const auto json_of = [&](const T* each) {
      return each != nullptr ? writer_.json_of(*each) : Json(nullptr);
    };
    Json changes = Json::diff(json_of(before), json_of(value), path_ + "/" + name);
    for (Json& each : changes) patch_.push_back(std::move(each));
  }
  template <class T>
  void derived(const char* /*name*/, const T& /*value*/) {}

  // nullopt: one has fields that the other has not.
  std::optional<Json> take() {
    if (!has_same_fields_) return std::nullopt;
    return std::move(patch_);
  }

 private:
  FieldLister before_;
  const std::string& path_;
  std::size_t next_ = 0;
  bool has_same_fields_ = true;
  Json unused_;
  FieldWriter writer_{unused_, Derived::without};
  Json patch_ = Json::array();
};

}  // namespace

Json recorded(const cow::ProcessCopies& process) {
  Json object = Json::object();
  FieldWriter io(object, Derived::without);
  describe(io, process);
  return object;
}

Json recorded_changes(const cow::ProcessCopies& before, const cow::ProcessCopies& after,
                      const std::string& path) {
  auto changes = FieldComparer(before, after, path).take();
  return changes ? std::move(*changes) : Json::diff(recorded(before), recorded(after), path);
}

Json recorded_head(const cow::Measurement& measurement) {
  Json object = {{"schema", kRunSchema}};
  FieldWriter io(object, Derived::without);
  describe(io, measurement);
  return object;
}

Json run_json(const cow::Measurement& measurement) {
  Json report = {{"schema", kRunSchema}};
  FieldWriter head(report, Derived::with);
  describe(head, measurement);
  report["processes"] = Json::array();
  const auto trees = cow::subtrees(measurement.processes);
  for (std::size_t i = 0; i < trees.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    Json& object = report["processes"].emplace_back(Json::object());
    FieldWriter io(object, Derived::with);
    describe(io, process);
    if (process.memory) {
      object["memory"]["age_s"] = measurement.memory_age_s(process);
      object["memory"]["stale"] = is_memory_stale(process);
    }
    io.derived("tree_processes", trees[i].processes);
    io.derived("tree_copied_pages", trees[i].copied_pages);
  }
  return report;
}

std::string text_of(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string line_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string json_report(const cow::Measurement& measurement) {
  return text_of(run_json(measurement));
}

Expected<cow::Measurement> measurement_of(const Json& json) {
  try {
    cow::Measurement measurement;
    FieldReader io(json, "");
    std::string schema;
    io.field("schema", schema);
    if (schema != kRunSchema && schema != kOlderRunSchema)
      throw JsonFieldError("/schema: '" + schema + "' is not known");
    describe(io, measurement);
    io.field("processes", measurement.processes);
    return measurement;
  } catch (const JsonFieldError& error) {
    return make_error(ErrorCode::bad_recording, error.what());
  }
}

}  // namespace cowshed::cowtop
