#include "tool.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <spawn.h>
#include <stdexcept>
#include <sys/resource.h>
#include <sys/wait.h>
#include <system_error>
#include <time.h>
#include <unistd.h>
#include <utility>

namespace cowshed::bench {
namespace {

bool read_more(int fd, std::string& text) {
  std::array<char, 4096> buffer;
  const ssize_t got = read(fd, buffer.data(), buffer.size());
  if (got > 0) text.append(buffer.data(), static_cast<std::size_t>(got));
  return got > 0;
}

}  // namespace

Tool::Tool(std::vector<std::string> command) : name_(command.front()) {
  std::array<int, 2> output = {};
  if (pipe2(output.data(), O_CLOEXEC) != 0)
    throw std::system_error(errno, std::system_category(), "pipe2");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output[1], STDERR_FILENO);
  std::vector<char*> arguments;
  arguments.reserve(command.size() + 1);
  for (std::string& argument : command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const int error = posix_spawnp(&pid_, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(output[1]);
  output_ = output[0];
  if (error != 0) throw std::runtime_error(name_ + " cannot be started");
}

Tool::~Tool() {
  if (pid_ != 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(output_);
}

void Tool::wait_for(const std::string& text) {
  while (text_.find(text) == std::string::npos) {
    if (!read_more(output_, text_)) {
      throw std::runtime_error(fmt::format("{} ended before it said \"{}\", having said: {}", name_,
                                           text.substr(0, text.find('\n')),
                                           text_.empty() ? "nothing" : text_));
    }
  }
}

const std::string& Tool::stop() {
  kill(pid_, SIGINT);
  return read_to_end();
}

const std::string& Tool::read_to_end() {
  while (read_more(output_, text_)) {
  }
  rusage used{};
  wait4(std::exchange(pid_, 0), nullptr, 0, &used);
  memory_mib_ = static_cast<double>(used.ru_maxrss) / 1024;
  return text_;
}

double cpu_ns(pid_t pid) {
  clockid_t clock = 0;
  timespec time{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0)
    throw std::runtime_error(fmt::format("process {}, whose CPU time is measured, has ended", pid));
  return 1e9 * static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec);
}

nlohmann::json json_said(const std::string& output) {
  const auto begin = output.find('{');
  if (begin == std::string::npos) throw std::runtime_error("cowtop ended: " + output);
  return nlohmann::json::parse(output.substr(begin));
}

std::string cowtop_path() {
  const auto self = std::filesystem::read_symlink("/proc/self/exe");
  return (self.parent_path() / "../tools/cowtop").string();
}

}  // namespace cowshed::bench
