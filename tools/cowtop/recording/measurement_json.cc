// The JSON of a measurement, schema cowshed.run/2: its fields, the report, what a recording keeps,
// and how both are read back.

#include <fmt/format.h>
#include <optional>
#include <string_view>
#include <utility>

#include <cowshed/cow/fork_copies.h>
#include <cowshed/tools/cowtop/recording/json_fields.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/text/container.h>
#include <cowshed/tools/cowtop/text/figures.h>

// The fields of each struct, in the order of the JSON.  These functions are static, not in an
// unnamed namespace, where argument-dependent lookup would not find them.
namespace cowshed {

static std::string name_of(Role role) { return role == Role::root ? "root" : "child"; }

static bool from_name(const std::string& name, Role& role) {
  if (name != "root" && name != "child") return false;
  role = name == "root" ? Role::root : Role::child;
  return true;
}

}  // namespace cowshed

namespace cowshed::cow {

using cowtop::PartMember;
using cowtop::Type;

COWSHED_JSON_STRUCT(ArenaCopies, name, bytes, copied_pages)
COWSHED_JSON_STRUCT(ObjectCopies, name, type, arena, copied_pages)
COWSHED_JSON_STRUCT(SentObjects, origin, name, type, kind, messages, objects, bytes)
static void describe(auto& io, Type<Frame> /*type*/) {
  using Struct = Frame;
  COWSHED_JSON_FIELDS(function, file, line, module, address, inlined)
  io.field_if([](const Struct& frame) { return frame.is_python; }, "python", &Struct::is_python);
}
COWSHED_JSON_STRUCT(CodeSite, samples, estimated_copies, frames, stack, truncated)
COWSHED_JSON_STRUCT(MappingCopies, name, samples, estimated_copies)
COWSHED_JSON_STRUCT(TypeCopies, name, samples, estimated_copies)
COWSHED_JSON_STRUCT(RangeCopies, begin, end, mapping, samples, estimated_copies)
COWSHED_JSON_STRUCT(FoldedStack, folded, samples, estimated_copies)
static void describe(auto& io, Type<FailedAccess> /*type*/) {
  using Struct = FailedAccess;
  COWSHED_JSON_FIELDS(address, mapping, reason, frames, stack)
  io.field_if([](const Struct& access) { return access.handled; }, "handled", &Struct::handled);
}
static void describe(auto& io, Type<SamplingSummary> /*type*/) {
  using Struct = SamplingSummary;
  COWSHED_JSON_FIELDS(period, emitted, received, lost, unread)
  io.field_if([](const Struct& sampling) { return sampling.longest_period > sampling.period; },
              "longest_period", &Struct::longest_period);
}
COWSHED_JSON_STRUCT(CopyPattern, pattern, share, samples, evidence)
COWSHED_JSON_STRUCT(MemorySample, shared_bytes, private_bytes, sampled_ns, touched_pages)
COWSHED_JSON_STRUCT(ProcessesNotSeen, at_least, at_most)
COWSHED_JSON_STRUCT(Overhead, events, ns_per_event)
static void describe(auto& io, Type<TreeMemory> /*type*/) {
  using Struct = TreeMemory;
  COWSHED_JSON_FIELDS(pss_bytes, peak_pss_bytes, page_table_bytes, processes, unread_processes)
  io.field_if([](const Struct& memory) { return memory.most_peak_bytes > memory.peak_pss_bytes; },
              "most_peak_bytes", &Struct::most_peak_bytes);
}

// The members of an optional `sampled` are fields of the struct itself.  Without samples a process
// has them as null; a measurement lacks them.
template <class Struct>
static void describe_sampled(auto& io, const auto& is_present) {
  const auto field = [&](const char* name, auto member) {
    io.field_if(is_present, name, PartMember(&Struct::sampled, member));
  };
  field("samples", &SampledCopies::samples);
  field("sites", &SampledCopies::sites);
  field("mappings", &SampledCopies::mappings);
  field("types", &SampledCopies::types);
  field("python_unread", &SampledCopies::python_unread);
  field("ranges", &SampledCopies::ranges);
  field("stacks", &SampledCopies::stacks);
}

static void describe(auto& io, Type<ProcessCopies> /*type*/) {
  using Struct = ProcessCopies;
  const auto is_sum = [](const Struct& process) { return process.processes != 1; };
  const auto has_objects = [](const Struct& process) { return process.objects.has_value(); };
  const auto has_transfers = [](const Struct& process) { return process.transfers.has_value(); };
  const auto has_failures = [](const Struct& process) {
    return process.sampled && !process.sampled->failures.empty();
  };
  const auto has_parent_copies = [](const Struct& process) {
    return process.parent_copied_pages.has_value();
  };
  const auto has_cgroup = [](const Struct& process) { return !process.cgroup.empty(); };
  io.field_if(is_sum, "processes", &Struct::processes);
  COWSHED_JSON_FIELDS(pid, ppid, comm, role, alive, start_ns, end_ns, exit_status, signal,
                      shares_memory, not_measured, shared_at_fork_bytes)
  io.field_if(has_cgroup, "cgroup", &Struct::cgroup);
  io.derived("all_copied_pages", &Struct::all_copied_pages);
  for (const CountInfo& each : kCounts) io.field(each.name, each.count);
  COWSHED_JSON_FIELDS(memory, unreadable, execs, arenas, patterns)
  io.field_if([](const Struct& process) { return process.most_risen_bytes.has_value(); },
              "most_risen_bytes", &Struct::most_risen_bytes);
  io.field_if(has_parent_copies, "parent_copied_pages", &Struct::parent_copied_pages);
  io.field_if(has_objects, "objects", &Struct::objects);
  io.derived_flag_if(has_objects, "objects_sampled");
  describe_sampled<Struct>(io, [](const Struct& /*process*/) { return true; });
  io.field_if(has_failures, "failures", PartMember(&Struct::sampled, &SampledCopies::failures));
  io.field_if(has_transfers, "transfers", &Struct::transfers);
  io.derived_flag_if(has_transfers, "transfers_sampled");
}

static void describe(auto& io, Type<NewMemory> /*type*/) {
  using Struct = NewMemory;
  COWSHED_JSON_FIELDS(samples, sites, mappings, causes, python_unread)
  io.field_if([](const Struct& memory) { return !memory.stacks.empty(); }, "stacks",
              &Struct::stacks);
}

// All fields but `processes`, which a recording keeps apart.
static void describe(auto& io, Type<Measurement> /*type*/) {
  using Struct = Measurement;
  COWSHED_JSON_FIELDS(backend, exact, duration_s, taken_ns, lost_events, unsure_faults, not_seen,
                      overhead, sampling)
  io.field_if([](const Struct& measurement) { return measurement.memory.has_value(); }, "memory",
              &Struct::memory);
  describe_sampled<Struct>(
      io, [](const Struct& measurement) { return measurement.sampled.has_value(); });
  io.field_if([](const Struct& measurement) { return measurement.new_memory.has_value(); },
              "new_memory", &Struct::new_memory);
}

}  // namespace cowshed::cow

namespace cowshed::cowtop {
namespace {

constexpr const char* kRunSchema = "cowshed.run/2";
constexpr const char* kOlderRunSchema = "cowshed.run/1";  // its further fields are ignored

// Makes the JSON Patch from one recorded process to another, if both have the same fields.  It
// makes JSON only of those that differ, because a recording of thousands of processes does this
// every second.
class FieldComparer {
 public:
  using Process = cow::ProcessCopies;
  FieldComparer(const Process& before, const Process& after, const std::string& path)
      : before_(before), after_(after), path_(path) {}

  template <class Member>
  void field(const char* name, const Member& member) {
    const auto* before = value_of(before_, member);
    const auto* after = value_of(after_, member);
    if (before == nullptr && after == nullptr) return;
    if (before != nullptr && after != nullptr && *before == *after) return;
    const auto json = [](const auto* value) {
      return value != nullptr ? json_of(*value, Derived::without) : Json(nullptr);
    };
    Json changes = Json::diff(json(before), json(after), path_ + "/" + name);
    for (Json& each : changes) patch_.push_back(std::move(each));
  }
  template <class Condition, class Member>
  void field_if(const Condition& condition, const char* name, const Member& member) {
    if (condition(before_) != condition(after_)) presence_differs_ = true;
    else if (condition(after_)) field(name, member);
  }
  // A recording has no derived fields.
  template <class Function>
  void derived(const char* /*name*/, const Function& /*function*/) {}
  template <class Condition>
  void derived_flag_if(const Condition& /*condition*/, const char* /*name*/) {}

  // nullopt: one process has a field that the other does not have.
  std::optional<Json> take() {
    if (presence_differs_) return std::nullopt;
    return std::move(patch_);
  }

 private:
  const Process& before_;
  const Process& after_;
  const std::string& path_;
  bool presence_differs_ = false;
  Json patch_ = Json::array();
};

// The schema and the fields of the measurement itself.
Json head_json(const cow::Measurement& measurement, Derived derived) {
  Json head = {{"schema", kRunSchema}};
  FieldWriter io(head, measurement, derived);
  describe(io, Type<cow::Measurement>{});
  return head;
}

// With what depends on other processes or on the measurement.
Json process_json(const cow::ProcessCopies& process, const cow::ForkCopies& copies,
                  const cow::Subtree& tree, const cow::Measurement& measurement) {
  Json object = json_of(process, Derived::with);
  object["copied_pages"] = or_null(copies.copied_pages);
  object["copied_bytes"] = or_null(copies.copied_bytes());
  object["copied_ratio"] = or_null(copies.copied_ratio());
  object["new_bytes"] = or_null(copies.new_bytes);
  if (process.memory) {
    object["memory"]["age_s"] = measurement.memory_age_s(process);
    object["memory"]["stale"] = is_memory_stale(process);
  }
  const Container container = container_of(process.cgroup);
  if (!container.id.empty()) object["container"] = container.id;
  if (!container.pod.empty()) object["pod"] = container.pod;
  object["tree_processes"] = tree.processes;
  object["tree_copied_pages"] = or_null(tree.copied_pages);
  return object;
}

// Escapes what would act on a terminal, as U+009B does.  The library escapes only ASCII.
std::string escaped(const std::string& json) {
  std::string text;
  std::string_view rest = json;
  while (!rest.empty()) {
    const auto [code, bytes] = first_character(rest);
    if (is_printable(code) || code == '\n') text += rest.substr(0, bytes);
    else if (code < 0x10000) text += fmt::format("\\u{:04x}", std::uint32_t{code});
    else
      text += fmt::format("\\u{:04x}\\u{:04x}", 0xd7c0U + (code >> 10U), 0xdc00U | (code & 0x3ffU));
    rest.remove_prefix(bytes);
  }
  return text;
}

}  // namespace

Json recorded_head(const cow::Measurement& measurement) {
  return head_json(measurement, Derived::without);
}

Json recorded(const cow::ProcessCopies& process) { return json_of(process, Derived::without); }

Json recorded_changes(const cow::ProcessCopies& before, const cow::ProcessCopies& after,
                      const std::string& path) {
  FieldComparer comparer(before, after, path);
  describe(comparer, Type<cow::ProcessCopies>{});
  auto changes = comparer.take();
  return changes ? std::move(*changes) : Json::diff(recorded(before), recorded(after), path);
}

Json run_json(const cow::Measurement& measurement) {
  Json report = head_json(measurement, Derived::with);
  report["processes"] = Json::array();  // last: a further key would move it
  Json& processes = report["processes"];
  const auto copies = cow::fork_copies(measurement);
  const auto trees = cow::subtrees(measurement);
  for (std::size_t i = 0; i < trees.size(); ++i)
    processes.push_back(process_json(measurement.processes[i], copies[i], trees[i], measurement));
  return report;
}

std::string text_of(const Json& json) {
  return escaped(json.dump(2, ' ', false, Json::error_handler_t::replace)) + "\n";
}

std::string line_of(const Json& json) {
  return escaped(json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

std::string json_report(const cow::Measurement& measurement) {
  return text_of(run_json(measurement));
}

Expected<cow::Measurement> measurement_of(const Json& json) {
  try {
    cow::Measurement measurement;
    std::string schema;
    read_field(json, "", "schema", schema);
    if (schema != kRunSchema && schema != kOlderRunSchema)
      throw JsonFieldError("/schema: '" + printable(schema) + "' is not known");
    read_struct(json, "", measurement);
    read_field(json, "", "processes", measurement.processes);
    constexpr std::uint64_t kMostCopied = std::uint64_t{1} << 50U;  // more would wrap in bytes
    std::uint64_t copied = 0;
    for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
      const cow::ProcessCopies& process = measurement.processes[i];
      if (process.processes == 0)
        throw JsonFieldError("/processes/" + std::to_string(i) + "/processes: is not 1 or more");
      copied += process.all_copied_pages().value_or(0);
      if (copied > kMostCopied) throw JsonFieldError("/processes: copied more than can be");
    }
    return measurement;
  } catch (const JsonFieldError& error) {
    return make_error(ErrorCode::bad_recording, error.what());
  }
}

}  // namespace cowshed::cowtop
