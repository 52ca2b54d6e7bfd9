#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include <cowshed/cow/measurement.h>
#include <cowshed/cow/meter_result.h>

namespace cowshed::cow {
namespace {

std::string size_text(std::uint64_t bytes) {
  constexpr std::uint64_t kKiB = 1024;
  constexpr std::uint64_t kMiB = kKiB * kKiB;
  if (bytes >= 10 * kMiB) return fmt::format("{} MiB", bytes / kMiB);
  return fmt::format("{} KiB", bytes / kKiB);
}

std::string object_text(const PublishedObject& object) {
  return fmt::format("object '{}' ({}) of arena '{}'", object.name, object.type, object.arena);
}

std::string ranges_text(const PageRanges& pages) {
  constexpr std::size_t kMost = 4;
  std::vector<PageRange> ranges = pages.ranges();
  std::ranges::stable_sort(ranges, std::greater<>(),
                           [](const PageRange& each) { return each.end - each.begin; });
  std::string text;
  for (std::size_t i = 0; i < std::min(ranges.size(), kMost); ++i)
    text += fmt::format("{}{:#x}-{:#x}", i == 0 ? "" : ", ", ranges[i].begin, ranges[i].end);
  if (ranges.size() > kMost) text += fmt::format(" and {} more ranges", ranges.size() - kMost);
  return text;
}

}  // namespace

std::uint64_t MeterResult::bytes() const {
  std::uint64_t total = 0;
  for (const CopiedMapping& mapping : mappings) total += mapping.pages.bytes();
  return total;
}

std::uint64_t MeterResult::at_least_bytes() const {
  std::uint64_t of_files = 0;
  std::uint64_t of_either = 0;
  for (const CopiedMapping& mapping : mappings)
    (mapping.has_file ? of_files : of_either) += mapping.pages.bytes();
  return of_files + of_either - std::min(of_either, faults_of_others * kPageSize);
}

std::uint64_t MeterResult::at_most_bytes() const {
  return bytes() + std::min(left_alone.bytes() + shared_again.bytes(), own_faults * kPageSize);
}

std::uint64_t MeterResult::bytes_of(const PublishedObject& object) const {
  std::uint64_t total = 0;
  for (const CopiedMapping& mapping : mappings)
    total += mapping.pages.bytes_within(pages_around(object.address, object.bytes));
  return total;
}

MeterResult MeterResult::within(const void* address, std::size_t bytes) const {
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  PageRanges place_pages;
  if (bytes > 0) place_pages.append(pages_around(begin, bytes));
  MeterResult result = *this;
  result.region = fmt::format("{} at {:#x}", size_text(bytes), begin);
  result.left_alone = intersect(left_alone, place_pages);
  result.shared_again = intersect(shared_again, place_pages);
  result.mappings.clear();
  for (const CopiedMapping& mapping : mappings) {
    PageRanges pages = intersect(mapping.pages, place_pages);
    if (pages.empty()) continue;
    result.mappings.push_back(mapping);
    result.mappings.back().pages = std::move(pages);
  }
  return result;
}

Expected<MeterResult> MeterResult::of_object(std::string_view name) const {
  const auto object = std::ranges::find(objects, name, &PublishedObject::name);
  if (object == objects.end()) {
    return make_error(
        ErrorCode::not_published,
        fmt::format("PID {}: publishes no object '{}' in a frozen arena: nothing is known of it",
                    pid, name));
  }
  MeterResult result = within(reinterpret_cast<const void*>(object->address), object->bytes);
  result.region = object_text(*object);
  return result;
}

std::string to_text(const MeterResult& copied) {
  const std::uint64_t bytes = copied.bytes();
  std::string text = fmt::format("{} copied by PID {}", size_text(bytes), copied.pid);
  if (!copied.region.empty()) text += " of " + copied.region;
  if (const auto least = copied.at_least_bytes(); least != bytes)
    text += fmt::format(" (at least {}: who shared the rest may have copied it)", size_text(least));
  if (const auto most = copied.at_most_bytes(); most != bytes) {
    text += fmt::format(" (at most {}: who shared {} has it no more", size_text(most),
                        size_text(copied.left_alone.bytes()));
    if (!copied.shared_again.empty())
      text += fmt::format(", and a fork may have shared {} again",
                          size_text(copied.shared_again.bytes()));
    text += ")";
  }
  if (copied.region.empty()) {
    text += fmt::format("; {} of {} are still shared", size_text(copied.still_shared_bytes),
                        size_text(copied.shared_at_begin_bytes));
  }
  text += "\n";
  for (const PublishedObject& object : copied.objects)
    if (const auto of_it = copied.bytes_of(object); of_it > 0)
      text += fmt::format("  {} of {}\n", size_text(of_it), object_text(object));
  for (const CopiedMapping& mapping : copied.mappings) {
    text += fmt::format("  {} of {} ({:#x}-{:#x}): {}\n", size_text(mapping.pages.bytes()),
                        mapping.arena.empty() ? mapping.name : "arena '" + mapping.arena + "'",
                        mapping.begin, mapping.end, ranges_text(mapping.pages));
  }
  for (const std::string& line : copied.unknown) text += "  not known: " + line + "\n";
  return text;
}

}  // namespace cowshed::cow
