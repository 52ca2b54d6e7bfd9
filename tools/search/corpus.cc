#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/tools/search/corpus.h>

namespace cowshed::search {
namespace {

constexpr const char* kHelper = "/usr/lib/apt/apt-helper";
constexpr std::string_view kSuffix = "_Packages";

bool is_list(const std::filesystem::path& path) {
  return path.filename().string().ends_with(kSuffix) || path.stem().string().ends_with(kSuffix);
}

bool is_compressed(const std::filesystem::path& path) {
  return !path.filename().string().ends_with(kSuffix);
}

Expected<std::string> read_all(int fd, const std::string& name) {
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got == 0) {
      return text;
    }
    if (got > 0) {
      text.append(buffer.data(), static_cast<std::size_t>(got));
    } else if (errno != EINTR) {
      return system_error(name + " cannot be read", errno);
    }
  }
}

// The helper's own complaints would be lines between ours.
int spawn_helper(const std::string& list, int output, pid_t& pid) {
  const std::array<const char*, 4> arguments = {kHelper, "cat-file", list.c_str(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  const int error = posix_spawn(&pid, kHelper, &actions, nullptr,
                                const_cast<char* const*>(arguments.data()), environ);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

Expected<std::string> decompress(const std::string& list) {
  std::array<int, 2> ends;
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return system_error("pipe", errno);
  }
  pid_t pid = 0;
  const int error = spawn_helper(list, ends[1], pid);
  close(ends[1]);
  if (error != 0) {
    close(ends[0]);
    return system_error(list + " cannot be decompressed: " + kHelper, error);
  }
  auto text = read_all(ends[0], list);
  close(ends[0]);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (text && status != 0) {
    return make_error(ErrorCode::invalid_argument,
                      list + " is damaged or cut off; `apt-get update` fetches it anew");
  }
  return text;
}

}  // namespace

Expected<std::vector<std::filesystem::path>> find_lists(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> lists;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (is_list(entry->path()) && !entry->is_directory(error)) {
      lists.push_back(entry->path());
    }
  }
  if (error) {
    return system_error("package lists " + folder.string(), error.value());
  }
  if (lists.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "no package lists in " + folder.string() +
                          "; run `apt-get update`, or name a folder with --lists");
  }
  std::sort(lists.begin(), lists.end());
  return lists;
}

Expected<std::string> read_list(const std::filesystem::path& list) {
  const int fd = open(list.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return system_error(list.string() + " cannot be read", errno);
  }
  auto text = is_compressed(list) ? decompress(list.string()) : read_all(fd, list.string());
  close(fd);
  return text;
}

}  // namespace cowshed::search
