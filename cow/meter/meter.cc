#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <functional>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/pagemap.h>
#include <cowshed/base/try.h>
#include <cowshed/cow/arenas/frozen_arenas.h>
#include <cowshed/cow/arenas/published_layout.h>
#include <cowshed/cow/meter.h>
#include <cowshed/cow/meter/page_snapshot.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {
namespace {

using internal::AnonymousPage;

// A process that may share pages with the measured process.
struct Other {
  pid_t pid = 0;
  ProcStat stat;
  FileDescriptor pagemap;
};

// Returns the parts of a mapping that belonged to the same mapping before.
PageRanges lasting_part(const Mapping& now, const std::vector<Mapping>& before) {
  PageRanges result;
  for (const Mapping& each : before) {
    if (!each.can_be_copied() || each.inode != now.inode) continue;
    if (now.has_file() && each.path != now.path) continue;
    const PageRange common{std::max(now.begin, each.begin), std::min(now.end, each.end)};
    if (common.begin < common.end) result.append(common);
  }
  return result;
}

PageRanges pages_of(const std::vector<FrozenArena>& arenas) {
  PageRanges result;
  for (const FrozenArena& arena : arenas) result.append({arena.mapping->begin, arena.mapping->end});
  return result;
}

}  // namespace

struct Meter::Region {
  Region(pid_t process, FileDescriptor maps_file, FileDescriptor pagemap_file)
      : pid(process), maps(std::move(maps_file)), pagemap(std::move(pagemap_file)) {}

  void find_others(const ProcStat& self);
  bool has_ended(const Other& other) const;
  std::uint64_t faults() const;
  void note_faults();
  Expected<void> scan(PageSnapshot& snapshot);
  PageRanges which_others_have(const PageRanges& pages) const;
  void count_others(MeterResult& result) const;
  void compare(MeterResult& result) const;

  ProcFiles proc;
  pid_t pid;
  pid_t owner = ::getpid();
  FileDescriptor maps;
  FileDescriptor pagemap;
  std::vector<Other> others;
  std::vector<std::string> unknown_at_begin;
  PageSnapshot before;
  PageSnapshot after;
  std::uint64_t own_faults = 0;
  Expected<MeterResult> copied = make_error(
      ErrorCode::invalid_argument, "this Meter's region has not ended: call end() before copied()");
};

void Meter::Region::find_others(const ProcStat& self) {
  const auto add = [&](pid_t other) {
    auto stat = proc.stat(other);
    if (!stat || !stat->has_memory()) return;
    // A process that has executed another program shares nothing.  (0: not permitted to know.)
    if (stat->start_stack != 0 && stat->start_stack != self.start_stack) return;
    if (shares_memory(pid, other)) return;
    auto file = proc.open(other, "pagemap");
    if (file) others.push_back({other, std::move(*stat), std::move(*file)});
    else unknown_at_begin.push_back(file.error().message);
  };
  if (self.ppid != 0) add(self.ppid);
  if (const auto children = proc.children(pid))
    for (const pid_t child : *children) add(child);
  else unknown_at_begin.push_back(children.error().message);
  if (!internal::tells_zero_page()) {
    unknown_at_begin.emplace_back(
        "which pages had been read and never written: before Linux 6.7, without CAP_SYS_ADMIN, "
        "they look shared");
  }
}

std::uint64_t Meter::Region::faults() const {
  const auto stat = proc.stat(pid);
  return stat ? stat->minor_faults : 0;
}

// As late as possible, so that faults of the measurement itself do not count.
void Meter::Region::note_faults() {
  own_faults = faults();
  for (Other& other : others)
    if (auto now = proc.stat(other.pid)) other.stat.minor_faults = now->minor_faults;
}

Expected<void> Meter::Region::scan(PageSnapshot& snapshot) {
  const int error = snapshot.take(maps.get(), pagemap.get());
  if (error == 0) return {};
  if (error != ESRCH) return system_error(fmt::format("PID {}: read pagemap", pid), error);
  return make_error(ErrorCode::no_such_process,
                    fmt::format("PID {}: has ended or runs another program, and what it had copied "
                                "is gone with its memory; end the region while it still runs",
                                pid));
}

bool Meter::Region::has_ended(const Other& other) const {
  const auto now = proc.stat(other.pid);
  return !now || now->start_ticks != other.stat.start_ticks || !now->has_memory();
}

PageRanges Meter::Region::which_others_have(const PageRanges& pages) const {
  PageRanges result;
  for (const Other& other : others) {
    PageRanges here;
    auto add = [&](std::uint64_t begin, std::uint64_t end, AnonymousPage /*kind*/) {
      here.append({begin, end});
    };
    for (const PageRange& range : pages.ranges()) {
      // Finds nothing if the process has ended.
      internal::visit_anonymous_pages(other.pagemap.get(), range.begin, range.end, std::ref(add));
    }
    result = unite(result, here);
  }
  return result;
}

void Meter::Region::count_others(MeterResult& result) const {
  std::size_t ended = 0;
  for (const Other& other : others)
    if (has_ended(other)) ++ended;
    else if (const auto now = proc.stat(other.pid))
      result.faults_of_others += now->minor_faults - other.stat.minor_faults;
  if (ended > 0) {
    result.unknown.push_back(
        fmt::format("{} of the {} processes that shared its memory ended in the region: what it "
                    "copied before is not told from what they left it",
                    ended, others.size()));
  }
  if (others.empty() && !before.pages(AnonymousPage::shared).empty()) {
    result.unknown.emplace_back(
        "it shares memory with processes that are neither its parent nor its children: copies of "
        "that are not told from what they left it");
  }
}

void Meter::Region::compare(MeterResult& result) const {
  const auto mappings_before = parse_maps(before.maps());
  const auto mappings = parse_maps(after.maps());
  const auto frozen = frozen_arenas(proc, pid, mappings);
  const PageRanges written = after.pages();
  const PageRanges written_before = before.pages();
  const PageRanges own = after.pages(AnonymousPage::own);
  const PageRanges shared = after.pages(AnonymousPage::shared);
  const PageRanges shared_before = before.pages(AnonymousPage::shared);
  const PageRanges of_arenas_before =
      subtract(pages_of(frozen_arenas(proc, pid, mappings_before)), written_before);

  PageRanges lasting;
  for (const Mapping& mapping : mappings)
    if (mapping.can_be_copied()) lasting = unite(lasting, lasting_part(mapping, mappings_before));
  const PageRanges parted = intersect(intersect(shared_before, own), lasting);
  const PageRanges others_have = which_others_have(parted);
  for (const Mapping& mapping : mappings) {
    if (!mapping.can_be_copied()) continue;
    const PageRanges part = lasting_part(mapping, mappings_before);
    PageRanges here = intersect(intersect(parted, others_have), part);
    if (mapping.has_file()) here = unite(here, intersect(subtract(written, written_before), part));
    if (here.empty()) continue;
    const auto arena = std::ranges::find(frozen, &mapping, &FrozenArena::mapping);
    result.mappings.push_back(
        {mapping.begin, mapping.end, mapping.path.empty() ? "anonymous memory" : mapping.path,
         arena != frozen.end() ? arena->name : "", mapping.has_file(), std::move(here)});
  }
  std::ranges::stable_sort(result.mappings, std::greater<>(),
                           [](const CopiedMapping& each) { return each.pages.bytes(); });
  result.left_alone = subtract(parted, others_have);
  const PageRanges shared_still = intersect(intersect(shared_before, shared), lasting);
  const PageRanges still =
      unite(shared_still, subtract(intersect(of_arenas_before, lasting), written));
  result.shared_at_begin_bytes = shared_before.bytes() + of_arenas_before.bytes();
  result.still_shared_bytes = still.bytes();
  result.dropped_bytes = subtract(shared_before, unite(parted, still)).bytes() +
                         subtract(of_arenas_before, lasting).bytes();
  result.newly_shared_bytes = intersect(before.pages(AnonymousPage::own), shared).bytes();
  if (result.newly_shared_bytes > 0) result.shared_again = shared_still;  // it has forked
  if (frozen.empty()) return;
  if (auto layout = read_published_layout(proc, pid, mappings)) {
    const PageRanges of_arenas = pages_of(frozen);
    for (PublishedObject& object : layout->objects) {
      const PageRange whole{object.address, object.address + object.bytes};
      if (of_arenas.bytes_within(whole) == object.bytes)
        result.objects.push_back(std::move(object));
    }
  } else {
    result.unknown.push_back("which objects were copied: " + layout.error().message);
  }
}

Meter::Meter(std::unique_ptr<Region> region) : region_(std::move(region)) {}
Meter::Meter(Meter&&) noexcept = default;
Meter& Meter::operator=(Meter&&) noexcept = default;
Meter::~Meter() = default;

Expected<Meter> Meter::begin() { return begin(::getpid()); }

Expected<Meter> Meter::begin(pid_t pid) {
  const ProcFiles proc;
  TRY(const auto stat, proc.stat(pid));
  TRY(auto maps, proc.open(pid, "maps"));
  TRY(auto pagemap, proc.open(pid, "pagemap"));
  if (shares_memory(pid, stat.ppid)) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("PID {}: runs in its parent's memory (vfork) and copies nothing "
                                  "until it executes a program",
                                  pid));
  }
  auto region = std::make_unique<Region>(pid, std::move(maps), std::move(pagemap));
  region->find_others(stat);
  // A rehearsal: afterwards this process has written to the pages that a scan writes to, such as
  // the stack and the addresses of library functions, and has the memory for the scans.
  for (PageSnapshot* snapshot : {&region->before, &region->after})
    TRY_VOID(region->scan(*snapshot));
  region->note_faults();
  Meter meter(std::move(region));
  TRY_VOID(meter.region_->scan(meter.region_->before));
  return meter;
}

Expected<void> Meter::end() {
  Region& region = *region_;
  if (region.pid == region.owner && ::getpid() != region.owner) {
    region.copied =
        make_error(ErrorCode::invalid_argument,
                   fmt::format("this Meter measures PID {}, from which PID {} was forked: begin "
                               "one in the child",
                               region.pid, ::getpid()));
  } else if (auto good = region.scan(region.after); !good) {
    region.copied = tl::make_unexpected(std::move(good.error()));
  } else {
    MeterResult result;
    result.pid = region.pid;
    result.own_faults = region.faults() - region.own_faults;
    result.unknown = region.unknown_at_begin;
    region.count_others(result);
    region.compare(result);
    region.copied = std::move(result);
  }
  if (!region.copied) return tl::make_unexpected(region.copied.error());
  return {};
}

const Expected<MeterResult>& Meter::copied() const { return region_->copied; }

}  // namespace cowshed::cow
