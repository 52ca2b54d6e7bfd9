#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include <cowshed/cow/subtrees.h>
#include <cowshed/tools/cowtop/json_report.h>

namespace cowshed::cowtop {
namespace {

using Json = nlohmann::ordered_json;

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json arenas_of(const cow::ProcessCopies& process) {
  Json arenas = Json::array();
  for (const cow::ArenaCopies& arena : process.arenas) {
    arenas.push_back({{"name", arena.name},
                      {"bytes", or_null(arena.bytes)},
                      {"copied_pages", arena.copied_pages}});
  }
  return arenas;
}

Json objects_of(const std::vector<cow::ObjectCopies>& copied) {
  Json objects = Json::array();
  for (const cow::ObjectCopies& object : copied) {
    objects.push_back({{"name", object.name},
                       {"type", object.type},
                       {"arena", object.arena},
                       {"copied_pages", object.copied_pages}});
  }
  return objects;
}

Json transfers_of(const std::vector<cow::SentObjects>& sent) {
  Json transfers = Json::array();
  for (const cow::SentObjects& each : sent) {
    transfers.push_back({{"origin", each.origin},
                         {"name", each.name},
                         {"type", each.type},
                         {"kind", each.kind},
                         {"messages", each.messages},
                         {"objects", each.objects},
                         {"bytes", each.bytes}});
  }
  return transfers;
}

Json frame_object(const cow::Frame& frame) {
  return {{"function", frame.function}, {"file", frame.file},       {"line", frame.line},
          {"module", frame.module},     {"address", frame.address}, {"inlined", frame.inlined}};
}

Json frames_of(const std::vector<cow::Frame>& stack) {
  Json frames = Json::array();
  for (const cow::Frame& frame : stack) frames.push_back(frame_object(frame));
  return frames;
}

// Adds what is estimated from samples.
void add_sampled(Json& object, const std::optional<cow::SampledCopies>& sampled) {
  if (!sampled) {
    for (const char* field : {"samples", "sites", "mappings", "ranges"}) object[field] = nullptr;
    return;
  }
  object["samples"] = sampled->samples;
  object["sites"] = Json::array();
  for (const cow::CodeSite& site : sampled->sites) {
    object["sites"].push_back({{"samples", site.samples},
                               {"estimated_copies", site.estimated_copies},
                               {"frames", frames_of(site.frames)},
                               {"stack", frames_of(site.stack)},
                               {"truncated", site.truncated}});
  }
  object["mappings"] = Json::array();
  for (const cow::MappingCopies& mapping : sampled->mappings) {
    object["mappings"].push_back({{"name", mapping.name},
                                  {"samples", mapping.samples},
                                  {"estimated_copies", mapping.estimated_copies}});
  }
  object["ranges"] = Json::array();
  for (const cow::RangeCopies& range : sampled->ranges) {
    object["ranges"].push_back({{"begin", range.begin},
                                {"end", range.end},
                                {"mapping", range.mapping},
                                {"samples", range.samples},
                                {"estimated_copies", range.estimated_copies}});
  }
}

Json sampling_of(const std::optional<cow::SamplingSummary>& sampling) {
  if (!sampling) return nullptr;
  return {{"period", sampling->period},
          {"emitted", sampling->emitted},
          {"received", sampling->received},
          {"lost", sampling->lost}};
}

Json patterns_of(const std::optional<std::vector<cow::CopyPattern>>& found) {
  if (!found) return nullptr;
  Json patterns = Json::array();
  for (const cow::CopyPattern& each : *found) {
    patterns.push_back({{"pattern", each.pattern},
                        {"share", each.share},
                        {"samples", each.samples},
                        {"evidence", each.evidence}});
  }
  return patterns;
}

const char* name_of(cow::CopyDiff::Taken taken) {
  return taken == cow::CopyDiff::Taken::at_exit ? "exit" : "interval";
}

Json diff_of(const std::optional<cow::CopyDiff>& diff) {
  if (!diff) return nullptr;
  return {{"taken", name_of(diff->taken)},
          {"compared_pages", diff->compared_pages},
          {"alone_pages", diff->alone_pages},
          {"not_compared_pages", diff->not_compared_pages},
          {"unchanged_pages", diff->unchanged_pages},
          {"compared_bytes", diff->compared_bytes()},
          {"changed_bytes", diff->changed_bytes},
          {"changed_ratio", or_null(diff->changed_ratio())},
          {"changes", diff->changes},
          {"width_bytes", diff->width_bytes},
          {"changes_of_width", diff->changes_of_width},
          {"stride_bytes", diff->stride_bytes},
          {"changes_at_stride", diff->changes_at_stride},
          {"cost_ns", diff->cost_ns}};
}

Json exit_diffs_of(const std::optional<cow::ExitDiffSummary>& exits) {
  if (!exits) return nullptr;
  return {{"compared", exits->compared},
          {"missed", exits->missed},
          {"refused", exits->refused},
          {"held_ns", exits->held_ns}};
}

Json memory_of(const cow::Measurement& measurement, const cow::ProcessCopies& process) {
  if (!process.memory) return nullptr;
  return {{"shared_bytes", process.memory->shared_bytes},
          {"private_bytes", process.memory->private_bytes},
          {"age_s", measurement.memory_age_s(process)}};
}

Json not_seen_of(const std::optional<cow::ProcessesNotSeen>& not_seen) {
  if (!not_seen) return nullptr;
  return {{"at_least", not_seen->at_least}, {"at_most", or_null(not_seen->at_most)}};
}

// From the first time that there was to the last.
Json histogram_of(const std::optional<cow::CopyLatency>& latency) {
  if (!latency) return nullptr;
  Json histogram = Json::array();
  const auto& faults = latency->faults;
  const auto is_some = [](std::uint64_t count) { return count != 0; };
  const auto begin = std::find_if(faults.begin(), faults.end(), is_some);
  const auto end = std::find_if(faults.rbegin(), faults.rend(), is_some).base();
  for (auto each = begin; each < end; ++each) {
    const auto power = static_cast<unsigned>(each - faults.begin());
    histogram.push_back({{"from_ns", std::uint64_t{1} << power},
                         {"to_ns", std::uint64_t{2} << power},
                         {"count", *each}});
  }
  return histogram;
}

Json process_object(const cow::Measurement& measurement, const cow::ProcessCopies& process,
                    const cow::Subtree& tree) {
  Json object = {
      {"pid", process.pid},
      {"ppid", process.ppid},
      {"comm", process.comm},
      {"role", process.role == cow::Role::root ? "root" : "child"},
      {"alive", process.alive},
      {"start_ns", process.start_ns},
      {"end_ns", or_null(process.end_ns)},
      {"exit_status", or_null(process.exit_status)},
      {"signal", or_null(process.signal)},
      {"shares_memory", process.shares_memory},
      {"not_measured", process.not_measured.empty() ? Json(nullptr) : Json(process.not_measured)},
      {"shared_at_fork_bytes", or_null(process.shared_at_fork_bytes)},
      {"copied_pages", or_null(process.copied_pages())},
      {"copied_bytes", or_null(process.copied_bytes())},
      {"copied_ratio", or_null(process.copied_ratio())},
      {"copied_anon_pages", or_null(process.copied_anon_pages)},
      {"copied_file_pages", or_null(process.copied_file_pages)},
      {"reused_pages", or_null(process.reused_pages)},
      {"zero_page_writes", or_null(process.zero_page_writes)},
      {"zero_filled_pages", or_null(process.zero_filled_pages)},
      {"huge_splits", or_null(process.huge_splits)},
      {"write_notify_faults", or_null(process.write_notify_faults)},
      {"failed_faults", or_null(process.failed_faults)},
      {"other_faults", or_null(process.other_faults)},
      {"cow_ns", process.latency ? Json(process.latency->ns) : Json(nullptr)},
      {"cow_ns_histogram", histogram_of(process.latency)},
      {"memory", memory_of(measurement, process)},
      {"unreadable", process.unreadable},
      {"execs", process.execs},
      {"copied_pages_before_exec", or_null(process.copied_pages_before_exec)},
      {"tree_processes", tree.processes},
      {"tree_copied_pages", or_null(tree.copied_pages)},
      {"arenas", arenas_of(process)},
      {"patterns", patterns_of(process.patterns)},
      {"diff", diff_of(process.diff)},
  };
  if (process.objects) {
    object["objects"] = objects_of(*process.objects);
    object["objects_sampled"] = true;  // by either backend
  }
  add_sampled(object, process.sampled);
  if (process.transfers) {
    object["transfers"] = transfers_of(*process.transfers);
    object["transfers_sampled"] = true;
  }
  return object;
}

}  // namespace

std::string json_report(const cow::Measurement& measurement) {
  Json report = {
      {"schema", "cowshed.run/1"},
      {"backend", measurement.backend},
      {"exact", measurement.exact},
      {"duration_s", measurement.duration_s},
      {"lost_events", or_null(measurement.lost_events)},
      {"not_seen", not_seen_of(measurement.not_seen)},
      {"overhead",
       {{"events", measurement.overhead.events},
        {"ns_per_event", or_null(measurement.overhead.ns_per_event)}}},
      {"sampling", sampling_of(measurement.sampling)},
      {"diffs", measurement.diffs ? Json(name_of(*measurement.diffs)) : Json()},
      {"exit_diffs", exit_diffs_of(measurement.exit_diffs)},
      {"processes", Json::array()},
  };
  const auto trees = cow::subtrees(measurement.processes);
  for (std::size_t i = 0; i < trees.size(); ++i) {
    report["processes"].push_back(process_object(measurement, measurement.processes[i], trees[i]));
  }
  if (measurement.sampled) add_sampled(report, measurement.sampled);
  // A command's name may hold any bytes.
  return report.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace cowshed::cowtop
