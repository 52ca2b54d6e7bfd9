#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

#include <cowshed/share/process/other_threads.h>

namespace cowshed::internal {

std::string other_threads(std::string_view but) {
#ifdef __SANITIZE_THREAD__
  constexpr std::size_t kExpected = 1;  // ThreadSanitizer's
#else
  constexpr std::size_t kExpected = 0;
#endif
  constexpr unsigned kIsExiting = 0x4;  // PF_EXITING
  constexpr int kTries = 50;            // also where a sandbox has no flags of threads
  constexpr int kTriesForExits = 5000;
  constexpr std::size_t kMostNames = 200;
  for (int i = 0;; ++i) {
    std::string names;
    std::size_t count = 0;
    bool all_exit = true;
    std::error_code error;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", error)) {
      const std::string thread = task.path().filename();
      if (thread == std::to_string(gettid())) continue;
      std::string text;
      std::getline(std::ifstream(task.path() / "stat"), text, '\0');  // a name may have '\n'
      const std::size_t begin = text.find('(') + 1;
      const std::size_t end = text.rfind(')');
      unsigned flags = 0;
      std::string name = "?";
      if (end != text.npos) {
        name = text.substr(begin, end - begin);
        std::sscanf(&text[end], ") %*c %*d %*d %*d %*d %*d %u", &flags);
      } else if (!exists(task.path(), error)) {
        continue;  // it has ended
      }
      if (!but.empty() && name == but) continue;
      // A main thread that has called pthread_exit() stays until all others have ended.
      all_exit = all_exit && (flags & kIsExiting) != 0 && thread != std::to_string(getpid());
      if (++count > kExpected && names.size() <= kMostNames)
        names += (names.empty() ? "" : ", ") + name + " (" + thread + ')';
    }
    if (error) {  // a sandbox refuses, say; the folder may still be counted
      struct stat status = {};
      constexpr std::size_t kLinksOfOne = 3;  // with "." and ".."
      const bool are_seen = stat("/proc/self/task", &status) == 0;
      if (!are_seen || status.st_nlink <= kLinksOfOne + kExpected) return "";
      return "of unknown names (" + error.message() + ")";
    }
    if (names.size() > kMostNames) names += ", ...";
    if (names.empty() || i >= (all_exit ? kTriesForExits : kTries)) return names;
    usleep(200);
  }
}

}  // namespace cowshed::internal
