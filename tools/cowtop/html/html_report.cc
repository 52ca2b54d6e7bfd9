#include <algorithm>
#include <array>
#include <numeric>
#include <unordered_map>
#include <utility>
#include <vector>

#include <cowshed/tools/cowtop/analysis/summary.h>
#include <cowshed/tools/cowtop/html/copy_tree.h>
#include <cowshed/tools/cowtop/html/html_report.h>
#include <cowshed/tools/cowtop/html/page_text.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/report/folded_report.h>
#include <cowshed/tools/cowtop/report/text_report.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kMostDetailed = 2000;       // processes with curves and stacks
constexpr std::size_t kMostNodes = 50'000;        // of the tree of stacks
constexpr std::size_t kMostNodesOfAll = 200'000;  // of the stacks of single processes together

// Returns the processes with the most copies, in order of start.
std::vector<std::size_t> detailed_processes(const cow::Measurement& measurement) {
  const auto& processes = measurement.processes;
  std::vector<std::size_t> result(processes.size());
  std::iota(result.begin(), result.end(), 0);
  if (result.size() > kMostDetailed) {
    std::nth_element(result.begin(), result.begin() + kMostDetailed, result.end(),
                     [&](std::size_t a, std::size_t b) {
                       return processes[a].all_copied_pages().value_or(0) >
                              processes[b].all_copied_pages().value_or(0);
                     });
    result.resize(kMostDetailed);
    std::ranges::sort(result);
  }
  return result;
}

// The copies of one process, by the last node of the stack.
using PagesByNode = std::unordered_map<std::uint32_t, std::uint64_t>;

// Returns [node, pages, node, pages, ...], most pages first.  Node 0 has the pages of all further
// nodes.
Json flat(const PagesByNode& pages, std::size_t most) {
  std::vector<std::pair<std::uint32_t, std::uint64_t>> sorted(pages.begin(), pages.end());
  std::ranges::sort(sorted, [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  std::uint64_t left = 0;
  for (std::size_t i = most; i < sorted.size(); ++i) left += sorted[i].second;
  if (sorted.size() > most) sorted.resize(most);
  if (left > 0) sorted.emplace_back(0, left);
  Json result = Json::array();
  for (const auto& [node, count] : sorted) {
    result.push_back(node);
    result.push_back(count);
  }
  return result;
}

Json stacks_of(const cow::Measurement& measurement, const std::vector<std::size_t>& detailed) {
  CopyTree tree;
  std::vector<PagesByNode> by_process(measurement.processes.size());
  for_each_stack(measurement,
                 [&](std::size_t process, const std::string& folded, std::uint64_t pages) {
                   by_process[process][tree.add(folded, pages)] += pages;
                 });
  const std::vector<std::uint32_t> became = tree.prune(kMostNodes);
  Json parents = Json::array();
  Json names = Json::array();
  Json pages = Json::array();
  for (const CopyTree::Node& node : tree.nodes()) {
    parents.push_back(node.parent);
    names.push_back(node.name);
    pages.push_back(node.pages);
  }
  Json of = Json::array();
  const std::size_t most = kMostNodesOfAll / std::max<std::size_t>(detailed.size(), 1);
  for (const std::size_t process : detailed) {
    PagesByNode pruned;
    for (const auto& [node, count] : by_process[process]) pruned[became[node]] += count;
    if (!pruned.empty()) of.push_back({{"process", process}, {"pages", flat(pruned, most)}});
  }
  return {{"names", tree.names()},
          {"parent", std::move(parents)},
          {"name", std::move(names)},
          {"pages", std::move(pages)},
          {"of", std::move(of)}};
}

Json counts() {
  Json all = Json::array();
  for (const cow::CountInfo& each : cow::kCounts)
    all.push_back({{"name", each.name}, {"meaning", each.meaning}});
  return all;
}

// The columns of the page.
Json figures() {
  constexpr std::array kUnits = {"bytes", "count", "ratio", "seconds", "nanoseconds"};
  Json all = Json::array();
  for (const cow::Figure& each : cow::kFigures)
    if (!each.title.empty())
      all.push_back({{"name", each.name},
                     {"title", each.title},
                     {"unit", kUnits.at(static_cast<std::size_t>(each.unit))},
                     {"usual", each.is_usual},
                     {"meaning", cow::first_sentence(each.meaning)}});
  return all;
}

Json json_of(const std::vector<Share>& shares) {
  Json all = Json::array();
  for (const Share& each : shares)
    all.push_back({{"name", each.name}, {"bytes", each.bytes}, {"of_all", each.of_all}});
  return all;
}

// Of COPIED, of each process.
Json copied_causes(const cow::Measurement& measurement) {
  const std::vector<cow::ForkCopies> copies = cow::fork_copies(measurement);
  Json all = Json::array();
  for (std::size_t i = 0; i < copies.size(); ++i)
    all.push_back(json_of(causes_of(measurement.processes[i], copies[i])));
  return all;
}

Json texts_of(const cow::Frames& frames) {
  Json texts = Json::array();
  for (const cow::Frame& frame : frames) texts.push_back(frame_text(frame));
  return texts;
}

Json json_of(const std::vector<cow::CodeSite>& all) {
  Json sites = Json::array();
  for (const cow::CodeSite& site : all) {
    sites.push_back({{"frames", texts_of(site.frames)},
                     {"stack", texts_of(site.stack)},
                     {"truncated", site.truncated},
                     {"samples", site.samples},
                     {"estimated_copies", site.estimated_copies}});
  }
  return sites;
}

// Removes data that the page has in another form, or does not show.
void leave_out(cow::Measurement& measurement, const std::vector<std::size_t>& detailed) {
  if (measurement.sampled) measurement.sampled->sites.clear();
  if (measurement.new_memory) {
    measurement.new_memory->sites.clear();
    measurement.new_memory->stacks.clear();
  }
  std::vector<bool> is_detailed(measurement.processes.size());
  for (const std::size_t each : detailed) is_detailed[each] = true;
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    cow::ProcessCopies& process = measurement.processes[i];
    if (process.objects) {
      std::erase_if(*process.objects,
                    [](const cow::ObjectCopies& object) { return object.copied_pages == 0; });
    }
    if (!process.sampled) continue;
    process.sampled->sites.clear();
    process.sampled->stacks.clear();
    process.sampled->ranges.clear();
    process.sampled->types.clear();
    if (!is_detailed[i]) process.sampled->mappings.clear();
  }
}

}  // namespace

std::string html_page(std::string_view json) {
  std::string page;
  page.reserve(page_begin().size() + json.size() + json.size() / 8 + page_end().size());
  page += page_begin();
  for (const char c : json) {
    // JSON has '<' only in strings, where this means the same.  "</script" would end the data, and
    // "<!--" could hide the rest of the page.
    if (c == '<') page += "\\u003c";
    else page += c;
  }
  page += page_end();
  return page;
}

std::string html_report(cow::Measurement measurement, const RecordingHeader& header,
                        const Curves& curves, const std::string& note) {
  const std::vector<std::size_t> detailed = detailed_processes(measurement);
  const Summary summary = summarize(measurement);
  Json data = {{"kind", "report"},
               {"recording", to_json(header)},
               {"note", note},
               {"text", text_report(measurement)},
               {"detailed", detailed.size()},
               {"counts", counts()},
               {"figures", figures()},
               {"causes", json_of(summary.causes)},
               {"copied_causes", copied_causes(measurement)},
               {"new_causes", json_of(summary.new_causes)},
               {"sites", json_of(measurement.sampled.value_or(cow::SampledCopies()).sites)},
               {"new_sites", json_of(measurement.new_memory.value_or(cow::NewMemory()).sites)},
               {"stacks", stacks_of(measurement, detailed)},
               {"curves", curves.json(measurement, detailed)}};
  leave_out(measurement, detailed);
  data["run"] = run_json(measurement);
  return html_page(line_of(data));
}

std::string html_begun(const RecordingHeader& header, const std::string& note) {
  return html_page(line_of({{"kind", "begun"}, {"recording", to_json(header)}, {"note", note}}));
}

std::string html_comparison(const Comparison& comparison, const ComparedNames& names) {
  return html_page(R"({"kind": "diff", "diff": )" + comparison_json(comparison, names) + "}");
}

}  // namespace cowshed::cowtop
