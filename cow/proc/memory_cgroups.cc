#include <algorithm>
#include <fstream>
#include <memory>
#include <mntent.h>
#include <utility>

#include <cowshed/cow/proc/memory_cgroups.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kMostGroups = 4096;

// The path itself, and those above: "/a/b", "/a", "", which is the mount: a container's own cgroup.
std::vector<std::string_view> upwards(std::string_view path) {
  if (!path.starts_with('/')) return {};
  if (path == "/") path = {};
  std::vector<std::string_view> paths = {path};
  for (; !path.empty(); paths.push_back(path)) path = path.substr(0, path.rfind('/'));
  return paths;
}
std::string path_of(std::string_view group) { return group.empty() ? "/" : std::string(group); }

// False: it cannot be read.
bool read_event(const std::string& file, std::string_view name, std::uint64_t& count) {
  std::ifstream events(file);
  std::uint64_t value = 0;
  for (std::string event; events >> event >> value;)
    if (event == name) return count = value, true;
  return false;
}

}  // namespace

std::string cgroup_mount() {
  const std::unique_ptr<FILE, int (*)(FILE*)> mounts(::setmntent("/proc/self/mounts", "re"),
                                                     ::endmntent);
  while (const mntent* mount = mounts ? ::getmntent(mounts.get()) : nullptr)
    if (std::string_view(mount->mnt_type) == "cgroup2") return mount->mnt_dir;
  return "/sys/fs/cgroup";
}

MemoryCgroups::Group MemoryCgroups::read(std::string_view path) const {
  const std::string folder = mount_ + std::string(path);
  Group group;
  group.is_there = read_event(folder + "/memory.events", "oom_kill", group.kills);
  read_event(folder + "/memory.events.local", "oom", group.shortages);
  std::uint64_t bytes = 0;  // or the word "max"
  if (std::ifstream(folder + "/memory.max") >> bytes) group.limit_bytes = bytes;
  return group;
}

void MemoryCgroups::note(const std::string& path) {
  if (groups_.contains(path)) return;
  if (groups_.size() >= kMostGroups) groups_.clear();
  for (const std::string_view each : upwards(path))
    if (!groups_.contains(each)) groups_.emplace(each, read(each));
}

MemoryCgroups::Look MemoryCgroups::look(const std::string& path, std::uint64_t round) {
  if (std::exchange(round_, round) != round) looks_.clear();
  const auto [found, is_new] = looks_.try_emplace(path);
  Look& look = found->second;
  if (!is_new) return look;
  OutOfMemory of_gone;
  bool is_there = false;
  const std::vector<std::string_view> paths = upwards(path);
  for (const std::string_view each : paths) {
    const bool is_own = each == paths.front();
    const Group now = read(each);
    const auto known = groups_.find(each);
    const Group before = known == groups_.end() ? Group() : known->second;
    if (is_own) is_there = now.is_there;
    if (is_own && known != groups_.end())
      look.kills = now.kills - std::min(now.kills, before.kills);
    if (look.why.limit.empty() && now.shortages > before.shortages)
      look.why = {.limit = path_of(each), .limit_bytes = now.limit_bytes};
    if (now.is_there) groups_[std::string(each)] = now;
    // A container's cgroup goes with it: then its least limit.
    if (before.limit_bytes.value_or(UINT64_MAX) < of_gone.limit_bytes.value_or(UINT64_MAX))
      of_gone = {.limit = path_of(each), .limit_bytes = before.limit_bytes};
  }
  if (look.why.limit.empty() && !is_there) look.why = of_gone;
  if (look.why.limit.empty() && look.kills > 0) look.why.limit = kMachine;
  return look;
}

void MemoryCgroups::guess(const std::vector<ProcessCopies*>& processes, std::uint64_t round) {
  const std::set<const ProcessCopies*> were_alive = std::exchange(alive_, {});
  std::vector<ProcessCopies*> ended;
  std::vector<const ProcessCopies*> all;
  for (ProcessCopies* each : processes) {
    const bool was_alive = were_alive.contains(each);
    if (each->alive) note(each->cgroup);
    if (each->alive) alive_.insert(each);
    else if (was_alive) ended.push_back(each);
    if (each->alive || was_alive) all.push_back(each);
  }
  std::ranges::stable_sort(ended, std::greater<>(), [](const ProcessCopies* each) {
    return each->pss.value_or(PssSample()).pss_bytes;
  });
  std::map<std::string, std::uint64_t> chosen;
  for (ProcessCopies* each : ended) {
    const Look now = look(each->cgroup, round);
    if (chosen[each->cgroup]++ >= now.kills) continue;
    each->out_of_memory = now.why;
    each->out_of_memory->holders = largest_holders(all);
  }
}

std::vector<MemoryHolder> largest_holders(const std::vector<const ProcessCopies*>& processes) {
  constexpr std::size_t kMost = 3;
  std::vector<MemoryHolder> holders;
  for (const ProcessCopies* each : processes) {
    std::uint64_t bytes = each->pss ? each->pss->pss_bytes : 0;
    // By its end it may have grown, by no more than what it copied and touched.
    const std::uint64_t own =
        (each->all_copied_pages().value_or(0) + each->touched_pages()) * kPageSize;
    if (!each->alive) bytes = std::max(bytes, std::min(own, each->most_resident_bytes.value_or(0)));
    if (bytes > 0) holders.push_back({each->pid, each->name(), bytes});
  }
  std::ranges::stable_sort(holders, std::greater<>(), &MemoryHolder::bytes);
  if (holders.size() > kMost) holders.resize(kMost);
  return holders;
}

}  // namespace cowshed::cow
