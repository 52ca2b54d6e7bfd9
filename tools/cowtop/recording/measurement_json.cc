// The JSON of a measurement, schema cowshed.run/2: its fields, the report, what a recording keeps,
// and how both are read back.

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <optional>
#include <string_view>
#include <utility>

#include <cowshed/cow/figures.h>
#include <cowshed/tools/cowtop/analysis/findings.h>
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

// By AccessFailure.
constexpr std::array<const char*, static_cast<std::size_t>(AccessFailure::other) + 1> kReasons = {
    "unknown",   "not inherited",  "not mapped",   "read-only",
    "no access", "not executable", "lacks a page", "unknown"};

static std::string name_of(AccessFailure failure) {
  return kReasons.at(static_cast<std::size_t>(failure));
}

// All others are `other`, such as those of later versions.
static bool from_name(const std::string& name, AccessFailure& failure) {
  const auto* found = std::find(kReasons.begin() + 1, kReasons.end() - 1, name);
  failure = static_cast<AccessFailure>(found - kReasons.begin());
  return true;
}

// The field is absent where it has no value, as empty text, false or 0 have none.
template <class Struct, class M>
static void field_if_set(auto& io, const char* name, M Struct::* member) {
  const auto is_set = [member](const Struct& object) {
    if constexpr (requires { (object.*member).empty(); }) return !(object.*member).empty();
    else return static_cast<bool>(object.*member);
  };
  io.field_if(is_set, name, member);
}
#define COWSHED_JSON_FIELD_IF_SET(name) field_if_set(io, #name, &Struct::name);
#define COWSHED_JSON_FIELDS_IF_SET(...) \
  NLOHMANN_JSON_EXPAND(NLOHMANN_JSON_PASTE(COWSHED_JSON_FIELD_IF_SET, __VA_ARGS__))

using cowtop::Type;

COWSHED_JSON_STRUCT(Sender, pid, comm)
COWSHED_JSON_STRUCT(ForkCosts::Duration, ns, forks)
static void describe(auto& io, Type<ForkCosts::Failure> /*type*/) {
  using Struct = ForkCosts::Failure;
  io.field("errno", &Struct::error);
  COWSHED_JSON_FIELDS(forks)
}
static void describe(auto& io, Type<ForkCosts> /*type*/) {
  using Struct = ForkCosts;
  COWSHED_JSON_FIELDS(total_ns, longest_ns)
  COWSHED_JSON_FIELDS_IF_SET(durations, beside_threads, most_threads, written_pages, spawns,
                             failures)
}

}  // namespace cowshed

namespace cowshed::cow {

using cowtop::PartMember;

static void describe(auto& io, Type<ArenaCopies> /*type*/) {
  using Struct = ArenaCopies;
  COWSHED_JSON_FIELDS(name, bytes, copied_pages)
  COWSHED_JSON_FIELDS_IF_SET(copied_again_pages, written_bytes, held_bytes)
}
COWSHED_JSON_STRUCT(ObjectCopies, name, type, arena, copied_pages)
COWSHED_JSON_STRUCT(SentObjects, origin, name, type, kind, messages, objects, bytes)
static void describe(auto& io, Type<Frame> /*type*/) {
  using Struct = Frame;
  COWSHED_JSON_FIELDS(function, file, line, module, address, inlined)
  field_if_set(io, "python", &Struct::is_python);
}
COWSHED_JSON_STRUCT(CodeSite, samples, estimated_copies, frames, stack, truncated)
COWSHED_JSON_STRUCT(MappingCopies, name, samples, estimated_copies)
COWSHED_JSON_STRUCT(TypeCopies, name, samples, estimated_copies)
COWSHED_JSON_STRUCT(RangeCopies, begin, end, mapping, samples, estimated_copies)
static void describe(auto& io, Type<FoldedStack> /*type*/) {
  using Struct = FoldedStack;
  COWSHED_JSON_FIELDS(folded, samples, estimated_copies)
  COWSHED_JSON_FIELDS_IF_SET(cause, object)
}
static void describe(auto& io, Type<FailedAccess> /*type*/) {
  using Struct = FailedAccess;
  COWSHED_JSON_FIELDS(address, mapping, reason, frames, stack)
  COWSHED_JSON_FIELDS_IF_SET(handled)
}
static void describe(auto& io, Type<SamplingSummary> /*type*/) {
  using Struct = SamplingSummary;
  COWSHED_JSON_FIELDS(period, emitted, received, lost, unread)
  io.field_if([](const Struct& sampling) { return sampling.longest_period > sampling.period; },
              "longest_period", &Struct::longest_period);
}
static void describe(auto& io, Type<CopyPattern> /*type*/) {
  using Struct = CopyPattern;
  COWSHED_JSON_FIELDS(pattern, share, samples, evidence)
  COWSHED_JSON_FIELDS_IF_SET(library)
}
static void describe(auto& io, Type<MemorySample> /*type*/) {
  using Struct = MemorySample;
  COWSHED_JSON_FIELDS(shared_bytes, private_bytes, sampled_ns, touched_pages)
  COWSHED_JSON_FIELDS_IF_SET(free_bytes, trimmable_bytes, free_in_pymalloc_bytes,
                             mmap_threshold_bytes, merged_bytes, undone_bytes)
}
static void describe(auto& io, Type<AlikeMemory> /*type*/) {
  using Struct = AlikeMemory;
  COWSHED_JSON_FIELDS(private_bytes, zero_bytes, same_address_bytes, sampled_part, sampled_ns)
  COWSHED_JSON_FIELDS_IF_SET(any_address_bytes, unchanged_bytes)
}
COWSHED_JSON_STRUCT(MemoryPeak, pss_bytes, sampled_ns)
COWSHED_JSON_STRUCT(MemoryHolder, pid, comm, bytes)
static void describe(auto& io, Type<OutOfMemory> /*type*/) {
  using Struct = OutOfMemory;
  io.field("sure", &Struct::is_sure);
  COWSHED_JSON_FIELDS_IF_SET(limit, limit_bytes)
  COWSHED_JSON_FIELDS(holders)
}
COWSHED_JSON_STRUCT(ProcessesNotSeen, at_least, at_most)
COWSHED_JSON_STRUCT(Overhead, events, ns_per_event)
static void describe(auto& io, Type<TreeMemory> /*type*/) {
  using Struct = TreeMemory;
  COWSHED_JSON_FIELDS(pss_bytes, peak_pss_bytes, page_table_bytes, processes, unread_processes)
  COWSHED_JSON_FIELDS_IF_SET(shared_memory_bytes)
  io.field_if([](const Struct& memory) { return memory.most_peak_bytes > memory.peak_pss_bytes; },
              "most_peak_bytes", &Struct::most_peak_bytes);
}

static void describe(auto& io, Type<MemoryCgroup> /*type*/) {
  using Struct = MemoryCgroup;
  COWSHED_JSON_FIELDS(peak_bytes, oom_kills)
  COWSHED_JSON_FIELDS_IF_SET(limit)
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
  io.field_if(is_sum, "processes", &Struct::processes);
  COWSHED_JSON_FIELDS(pid, ppid, comm, role, alive, start_ns, end_ns, exit_status, signal,
                      shares_memory, not_measured, shared_at_fork_bytes)
  COWSHED_JSON_FIELDS_IF_SET(sender, out_of_memory, title, script, cgroup)
  io.derived("all_copied_pages", &Struct::all_copied_pages);
  for (const CountInfo& each : kCounts) io.field(each.name, each.count);
  COWSHED_JSON_FIELDS(memory, unreadable, execs, arenas, patterns)
  COWSHED_JSON_FIELDS_IF_SET(waits_for_ever, alike, files, most_risen_bytes, most_resident_bytes,
                             held_at_end_bytes, resident_before_bytes, shared_before_bytes, peak,
                             fork_costs, parent_copied_pages, objects)
  io.derived_flag_if(has_objects, "objects_sampled");
  describe_sampled<Struct>(io, [](const Struct& /*process*/) { return true; });
  io.field_if(has_failures, "failures", PartMember(&Struct::sampled, &SampledCopies::failures));
  COWSHED_JSON_FIELDS_IF_SET(transfers)
  io.derived_flag_if(has_transfers, "transfers_sampled");
}

static void describe(auto& io, Type<NewCause> /*type*/) {
  using Struct = NewCause;
  io.field("name", &Struct::cause);
  COWSHED_JSON_FIELDS(samples, estimated_copies)
  COWSHED_JSON_FIELDS_IF_SET(unforked_copies, most_copies, library)
}
static void describe(auto& io, Type<NewMemory> /*type*/) {
  using Struct = NewMemory;
  COWSHED_JSON_FIELDS(samples, sites, mappings, causes, python_unread)
  COWSHED_JSON_FIELDS_IF_SET(stacks)
}

// All fields but `processes`, which a recording keeps apart.
static void describe(auto& io, Type<Measurement> /*type*/) {
  using Struct = Measurement;
  COWSHED_JSON_FIELDS(backend, exact, duration_s, taken_ns, lost_events, unsure_faults, not_seen,
                      overhead, sampling)
  COWSHED_JSON_FIELDS_IF_SET(memory, memory_cgroup)
  describe_sampled<Struct>(
      io, [](const Struct& measurement) { return measurement.sampled.has_value(); });
  COWSHED_JSON_FIELDS_IF_SET(new_memory)
}

}  // namespace cowshed::cow

namespace cowshed::cowtop {
namespace {

constexpr const char* kRunSchema = "cowshed.run/2";
constexpr const char* kOlderRunSchema = "cowshed.run/1";  // its further fields are ignored

// Makes the JSON Patch from one recorded value to another.  It makes JSON only of parts that
// differ, because a recording of thousands of processes does this every second.
class Comparer {
 public:
  Comparer(std::string path, const AddOperation& add) : path_(std::move(path)), add_(add) {}

  template <class T>
  void compare(const T& before, const T& after) {
    if constexpr (IsOptional<T>::value) {
      if (before && after) compare(*before, *after);
      else if (before || after) write("replace", after);
    } else if constexpr (IsVector<T>::value) {
      compare_elements(before, after);
    } else if constexpr (std::is_class_v<T> && !Named<T> && !std::is_same_v<T, std::string> &&
                         !std::is_same_v<T, cow::Frames>) {
      Fields<T> io(*this, before, after);
      describe(io, Type<T>{});
    } else if (before != after) {
      write("replace", after);
    }
  }

 private:
  template <class T>
  class Fields {
   public:
    Fields(Comparer& comparer, const T& before, const T& after)
        : comparer_(comparer), before_(before), after_(after) {}

    template <class Member>
    void field(const char* name, const Member& member) {
      const auto* before = value_of(before_, member);
      const auto* after = value_of(after_, member);
      if (before == nullptr && after == nullptr) return;
      comparer_.at(name, [&] {
        if (before != nullptr && after != nullptr) comparer_.compare(*before, *after);
        else if (after != nullptr) comparer_.write("replace", *after);
        else comparer_.write("replace", std::optional<int>());
      });
    }
    template <class Condition, class Member>
    void field_if(const Condition& condition, const char* name, const Member& member) {
      const bool was_there = condition(before_);
      if (condition(after_) && was_there) return field(name, member);
      if (was_there) return comparer_.at(name, [&] { comparer_.write("remove"); });
      const auto* after = value_of(after_, member);
      if (condition(after_)) comparer_.at(name, [&] { comparer_.write("add", *after); });
    }
    // A recording has no derived fields.
    template <class Function>
    void derived(const char* /*name*/, const Function& /*function*/) {}
    template <class Condition>
    void derived_flag_if(const Condition& /*condition*/, const char* /*name*/) {}

   private:
    Comparer& comparer_;
    const T& before_;
    const T& after_;
  };

  template <class T>
  void compare_elements(const std::vector<T>& before, const std::vector<T>& after) {
    for (std::size_t i = 0; i < before.size() && i < after.size(); ++i)
      at(std::to_string(i), [&] { compare(before[i], after[i]); });
    for (std::size_t i = before.size(); i > after.size(); --i)
      at(std::to_string(i - 1), [&] { write("remove"); });
    for (std::size_t i = before.size(); i < after.size(); ++i)
      at("-", [&] { write("add", after[i]); });
  }

  void at(std::string_view name, const auto& compare_there) {
    const std::size_t size = path_.size();
    (path_ += '/') += name;
    compare_there();
    path_.resize(size);
  }

  void write(const char* operation) {
    add_(fmt::format(R"({{"op":"{}","path":"{}"}})", operation, path_));
  }
  template <class T>
  void write(const char* operation, const T& value) {
    const std::string text = line_of(json_of(value, Derived::without));
    add_(fmt::format(R"({{"op":"{}","path":"{}","value":{}}})", operation, path_, text));
  }

  std::string path_;
  const AddOperation& add_;
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
  for (const cow::Figure& each : cow::kFigures) {
    const auto value = each.of(measurement, process, copies);
    std::string path = "/" + std::string(each.name);
    std::ranges::replace(path, '.', '/');
    if (each.name.empty() || (!value && path.rfind('/') > 0)) continue;  // a part that is not there
    Json& field = object[Json::json_pointer(path)];
    if (each.unit == cow::Unit::ratio || each.unit == cow::Unit::seconds) field = or_null(value);
    else field = value ? Json(static_cast<std::uint64_t>(*value)) : Json();
  }
  if (process.memory) {
    object["memory"]["age_s"] = measurement.memory_age_s(process);
    object["memory"]["stale"] = cow::is_memory_stale(process);
  }
  const Container container = container_of(process.cgroup);
  if (!container.id.empty()) object["container"] = container.id;
  if (!container.pod.empty()) object["pod"] = container.pod;
  object["tree_processes"] = tree.processes;
  object["tree_copied_pages"] = or_null(tree.copied_pages);
  return object;
}

// Escapes what would act on a terminal, as U+009B does.  The library escapes only ASCII.
std::string escaped(std::string json) {
  const auto is_safe = [](char byte) { return (byte >= ' ' && byte <= '~') || byte == '\n'; };
  if (std::ranges::all_of(json, is_safe)) return json;
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

void recorded_changes(const cow::ProcessCopies& before, const cow::ProcessCopies& after,
                      const std::string& path, const AddOperation& add) {
  Comparer(path, add).compare(before, after);
}

void recorded_head_changes(const cow::Measurement& before, const cow::Measurement& after,
                           const AddOperation& add) {
  Comparer("", add).compare(before, after);
}

Json findings_json(const cow::Measurement& measurement) {
  Json all = Json::array();
  for (const Finding& each : findings_of(measurement, summarize(measurement))) {
    Json& finding = all.emplace_back(Json{{"kind", kind_of(each)}, {"bytes", each.bytes}});
    if (!each.subject.empty()) finding["subject"] = each.subject;
    if (each.of_bytes > 0) finding["of_bytes"] = each.of_bytes;
    if (each.is_estimate) finding["estimated"] = true;
    if (!each.file.empty()) finding.update({{"file", each.file}, {"line", each.line}});
    for (const Advice& advice : each.remedies) {
      Json& remedy = finding["remedies"].emplace_back(
          Json{{"rank", advice.rank + 1}, {"text", advice.text}, {"saves_bytes", nullptr}});
      if (advice.is_known) remedy["saves_bytes"] = advice.saves_bytes;
      if (advice.remedy->cure != nullptr) remedy["cure"] = advice.remedy->cure->name;
    }
  }
  return all;
}

Json run_json(const cow::Measurement& measurement) {
  Json report = head_json(measurement, Derived::with);
  report["findings"] = findings_json(measurement);
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
