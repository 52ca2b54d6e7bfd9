#include <algorithm>
#include <array>
#include <chrono>
#include <dirent.h>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <set>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tools/cowtop/cure/left_behind.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kMostFiles = 20'000;

// What a tool makes anew or only adds to, so that another run is like the first.
bool is_harmless(std::string_view name) {
  constexpr std::array<std::string_view, 5> kEnds = {"cache", "cache__", ".pyc", ".log", ".pid"};
  constexpr std::array<std::string_view, 2> kNames = {".git", ".coverage"};
  return std::ranges::any_of(kEnds, [&](auto each) { return name.ends_with(each); }) ||
         std::ranges::find(kNames, name) != kNames.end();
}

// Calls it with the path of each descriptor of a process, which may end meanwhile.
template <class Function>
void for_each_descriptor(pid_t pid, const Function& call) {
  std::error_code error;
  std::filesystem::directory_iterator each(fmt::format("/proc/{}/fd", pid), error);
  for (; !error && each != std::filesystem::directory_iterator(); each.increment(error))
    call(each->path());
}

// The report grows while we look: of a shell's redirection, or of tee behind a pipe, which is of
// our process group.  Those on the folder's file system.
std::set<std::uint64_t> inodes_of_reports(const std::string& folder) {
  std::set<std::uint64_t> inodes;
  struct stat own{};
  if (::stat(folder.c_str(), &own) != 0) return inodes;
  for (const pid_t pid : cow::ProcFiles().processes().value_or(std::vector{::getpid()})) {
    if (::getpgid(pid) != ::getpgrp()) continue;
    for_each_descriptor(pid, [&](const std::filesystem::path& path) {
      struct stat link{};
      struct stat file{};
      if (::lstat(path.c_str(), &link) == 0 && (link.st_mode & S_IWUSR) != 0 &&
          ::stat(path.c_str(), &file) == 0 && file.st_dev == own.st_dev)
        inodes.insert(file.st_ino);
    });
  }
  return inodes;
}

std::set<std::string> sockets_of(pid_t pid) {
  std::set<std::string> inodes;
  for_each_descriptor(pid, [&](const std::filesystem::path& path) {
    std::error_code error;
    const std::string target = std::filesystem::read_symlink(path, error);
    constexpr std::string_view kSocket = "socket:[";
    if (target.starts_with(kSocket))
      inodes.insert(target.substr(kSocket.size(), target.size() - kSocket.size() - 1));
  });
  return inodes;
}

std::string ports_of(pid_t pid) {
  const std::set<std::string> sockets = sockets_of(pid);
  std::set<unsigned long> ports;
  for (const char* family : {"tcp", "tcp6"}) {
    std::ifstream table(fmt::format("/proc/{}/net/{}", pid, family));
    for (std::string line; std::getline(table, line);) {
      std::istringstream words(line);
      std::array<std::string, 10> word;
      for (std::string& each : word) words >> each;
      constexpr const char* kListens = "0A";
      const auto port = word[1].rfind(':');
      if (word[3] == kListens && sockets.contains(word[9]) && port != word[1].npos)
        ports.insert(std::stoul(word[1].substr(port + 1), nullptr, 16));
    }
  }
  std::string text;
  for (const unsigned long each : ports)
    text += fmt::format("{} {}", text.empty() ? ", which listens on port" : ",", each);
  return text;
}

bool is_running(pid_t pid) {
  const auto stat = cow::ProcFiles().stat(pid);
  return stat && stat->state != 'Z';
}

}  // namespace

// False: not all.  Files of another file system do not count.
bool FolderState::add_files_of(const std::string& folder, const std::string& within, Files& files) {
  const std::string path = folder + "/" + within;
  DIR* entries = ::opendir(path.c_str());
  if (entries == nullptr) return false;
  struct stat own{};
  bool are_all = ::fstat(::dirfd(entries), &own) == 0;
  for (const dirent* entry = nullptr; are_all && (entry = ::readdir(entries)) != nullptr;) {
    const std::string name = entry->d_name;
    struct stat file{};
    if (name == "." || name == ".." || is_harmless(name) ||
        ::fstatat(::dirfd(entries), entry->d_name, &file, AT_SYMLINK_NOFOLLOW) != 0 ||
        file.st_dev != own.st_dev)
      continue;
    constexpr std::int64_t kNsPerSecond = 1'000'000'000;
    if (S_ISDIR(file.st_mode)) files[within + name] = {file.st_ino, -1, 0};
    else  // st_mtim can be set back
      files[within + name] = {file.st_ino, file.st_size,
                              file.st_ctim.tv_sec * kNsPerSecond + file.st_ctim.tv_nsec};
    are_all = files.size() <= kMostFiles;
  }
  ::closedir(entries);
  return are_all;
}

FolderState::FolderState(std::string folder) : folder_(std::move(folder)) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  std::vector<std::string> next = {""};
  for (std::size_t i = 0; i < next.size() && std::chrono::steady_clock::now() < end; ++i) {
    Files files;
    if (!add_files_of(folder_, next[i], files) || files_.size() + files.size() > kMostFiles)
      continue;
    folders_.push_back(next[i]);
    for (const auto& [name, file] : files)
      if (file.size < 0) next.push_back(name + "/");
    files_.merge(files);
  }
}

std::vector<std::string> FolderState::changed() const {
  Files now;
  for (const std::string& each : folders_) {
    Files files;
    add_files_of(folder_, each, files);
    now.merge(files);
  }
  std::vector<std::string> names;
  const std::set<std::uint64_t> reports = inodes_of_reports(folder_);
  for (const auto& [name, file] : now) {
    if (reports.contains(file.inode)) continue;
    const auto before = files_.find(name);
    if (before == files_.end()) names.push_back(name + " (new)");
    else if (before->second != file) names.push_back(name + " (changed)");
  }
  for (const auto& [name, file] : files_)
    if (!now.contains(name)) names.push_back(name + " (gone)");
  return names;
}

std::vector<std::string> processes_left(const cow::Measurement& measurement) {
  std::vector<std::string> lines;
  for (const cow::ProcessCopies& each : measurement.processes)
    if (each.alive && is_running(each.pid))
      lines.push_back(fmt::format("PID {} ({}){}", each.pid, each.comm, ports_of(each.pid)));
  return lines;
}

}  // namespace cowshed::cowtop
