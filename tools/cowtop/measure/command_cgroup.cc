#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <linux/bpf.h>
#include <sstream>
#include <string_view>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/cow/proc/memory_cgroups.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tools/cowtop/measure/command_cgroup.h>

namespace cowshed::cowtop {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMembers = "/cgroup.procs";
constexpr const char* kEnabled = "/cgroup.subtree_control";

std::string text_of_file(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool write_to_file(const std::string& path, std::string_view text) {
  const FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return file && ::write(file.get(), text.data(), text.size()) == std::ssize(text);
}

std::vector<pid_t> members_of(const std::string& folder) {
  std::istringstream file(text_of_file(folder + kMembers));
  return {std::istream_iterator<pid_t>(file), {}};
}

bool has_memory(const std::string& controllers_file) {
  std::istringstream file(text_of_file(controllers_file));
  return std::count(std::istream_iterator<std::string>(file), {}, "memory") > 0;
}

void move_members(const std::string& from, const std::string& to) {
  for (const pid_t pid : members_of(from)) write_to_file(to + kMembers, std::to_string(pid));
}

void remove_empty_below(const std::string& folder) {
  std::error_code gone;
  for (fs::directory_iterator entry(folder, gone), end; !gone && entry != end;
       entry.increment(gone)) {
    if (!entry->is_directory(gone)) continue;
    remove_empty_below(entry->path());
    ::rmdir(entry->path().c_str());
  }
}

void remove_cgroups(const CgroupPlace& place) {
  constexpr int kAttempts = 2000;  // a member that is ending counts
  constexpr auto kBetweenUs = 1000;
  bool are_gone = false;
  for (int attempt = 0; attempt < kAttempts && !are_gone; ++attempt) {
    if (attempt > 0) ::usleep(kBetweenUs);
    remove_empty_below(place.folder);
    if (!place.aside.empty()) write_to_file(place.own + kEnabled, "-memory");
    are_gone = true;
    for (const std::string& folder : {place.folder, place.aside}) {
      if (folder.empty()) continue;
      move_members(folder, place.own);
      if (::rmdir(folder.c_str()) != 0 && errno == EBUSY) are_gone = false;
    }
  }
}

// Programs of a cgroup's own limit devices and addresses.
bool has_programs(const std::string& folder) {
  const FileDescriptor cgroup(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (std::uint32_t type = 0; type <= BPF_LSM_CGROUP; ++type) {
    bpf_attr query{};
    query.query.target_fd = static_cast<std::uint32_t>(cgroup.get());
    query.query.attach_type = type;
    if (::syscall(SYS_bpf, BPF_PROG_QUERY, &query, sizeof query) == 0 && query.query.prog_cnt > 0)
      return true;
  }
  return false;
}

// The cgroup above, or the same, that has the least limit; empty: none has one.
std::string limit_of(const CgroupPlace& place) {
  std::string limit;
  std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
  for (std::string at = place.folder; at.size() >= place.mount.size(); at.resize(at.rfind('/'))) {
    std::uint64_t bytes = 0;  // or the word "max"
    if (!(std::istringstream(text_of_file(at + "/memory.max")) >> bytes) || bytes >= least)
      continue;
    least = bytes;
    limit = at.size() == place.mount.size() ? "/" : at.substr(place.mount.size());
  }
  return limit;
}

}  // namespace

std::optional<CgroupPlace> find_cgroup_place(const std::string& mount, const std::string& path,
                                             pid_t self) {
  if (path.empty()) return std::nullopt;
  CgroupPlace place{mount, mount + (path == "/" ? "" : path), "", ""};
  const auto members = members_of(place.own);
  if (std::ranges::find(members, self) == members.end()) return std::nullopt;
  const std::string name = "/cowtop-" + std::to_string(self);
  place.folder = place.own + name;
  if (!fs::exists(place.own + "/cgroup.type"))  // the root of all
    return has_memory(place.own + kEnabled) ? std::optional(place) : std::nullopt;
  const auto is_ours = [&](pid_t pid) {
    const auto stat = cow::ProcFiles().stat(pid);
    return pid == self || (stat && stat->ppid == self);
  };
  if (std::ranges::all_of(members, is_ours) && has_memory(place.own + "/cgroup.controllers")) {
    place.aside = place.folder + "-itself";
    return place;
  }
  const std::string parent = place.own.substr(0, place.own.rfind('/'));
  if (!path.starts_with("/user.slice/") || !path.ends_with(".scope") ||
      !has_memory(parent + kEnabled))
    return std::nullopt;
  place.folder = parent + name;
  return place;
}

bool has_same_settings(const std::string& own, const std::string& fresh) {
  constexpr auto kReadWrite = fs::perms::owner_read | fs::perms::owner_write;
  const auto is_setting = [&](const fs::directory_entry& file) {
    const std::string name = file.path().filename();
    return (file.status().permissions() & kReadWrite) == kReadWrite && !file.is_directory() &&
           name != "cgroup.procs" && name != "cgroup.threads" && !name.ends_with(".pressure") &&
           !name.ends_with(".peak");
  };
  for (const auto& file : fs::directory_iterator(fresh)) {
    const std::string name = file.path().filename();
    if (is_setting(file) && text_of_file(file.path()) != text_of_file(fs::path(own) / name))
      return false;
  }
  return !has_programs(own);
}

CommandCgroup::CommandCgroup(CgroupPlace place)
    : place_(std::move(place)),
      helper_(cow::HelperProcess::start("cowtop-cgroup", cow::HelperProcess::Rights::as_ours,
                                        [&](const cow::HelperSocket& socket) {
                                          ::setsid();  // a signal to cowtop's group spares it
                                          socket.receive();
                                          remove_cgroups(place_);
                                        })) {}

std::optional<CommandCgroup> CommandCgroup::make(pid_t command) {
  constexpr mode_t kMode = 0755;
  auto place =
      find_cgroup_place(cow::cgroup_mount(), cow::ProcFiles().cgroup(::getpid()), ::getpid());
  if (!place || ::mkdir(place->folder.c_str(), kMode) != 0) return std::nullopt;
  if (!place->aside.empty()) ::mkdir(place->aside.c_str(), kMode);
  CommandCgroup cgroup(std::move(*place));
  if (!cgroup.helper_) remove_cgroups(cgroup.place_);
  if (!cgroup.helper_ || !cgroup.take(command)) return std::nullopt;
  return cgroup;
}

bool CommandCgroup::take(pid_t command) {
  if (!place_.aside.empty()) {
    move_members(place_.own, place_.aside);
    if (!write_to_file(place_.own + kEnabled, "+memory")) return false;
  }
  const bool is_beside = !place_.folder.starts_with(place_.own + "/");
  return memory() && (!is_beside || has_same_settings(place_.own, place_.folder)) &&
         write_to_file(place_.folder + kMembers, std::to_string(command));
}

CommandCgroup::~CommandCgroup() {
  if (helper_) remove_cgroups(place_);  // else it was moved from
}

std::optional<cow::MemoryCgroup> CommandCgroup::memory() const {
  cow::MemoryCgroup memory;
  if (!(std::istringstream(text_of_file(place_.folder + "/memory.peak")) >> memory.peak_bytes))
    return std::nullopt;
  std::istringstream events(text_of_file(place_.folder + "/memory.events"));
  std::uint64_t count = 0;
  for (std::string event; events >> event >> count;)
    if (event == "oom_kill") memory.oom_kills = count;
  memory.limit = limit_of(place_);
  return memory;
}

}  // namespace cowshed::cowtop
