#include "subject.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <spawn.h>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "machine.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;

bool write_line(int fd, const json& value) {
  const std::string line = value.dump() + "\n";
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t wrote = write(fd, line.data() + done, line.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    done += static_cast<std::size_t>(wrote);
  }
  return true;
}

// False at the end of the input.  `buffer` keeps what came after the line.
bool read_line(int fd, std::string& buffer, std::string& line) {
  for (;;) {
    const auto end = buffer.find('\n');
    if (end != std::string::npos) {
      line = buffer.substr(0, end);
      buffer.erase(0, end + 1);
      return true;
    }
    std::array<char, 4096> part{};
    const ssize_t got = read(fd, part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    buffer.append(part.data(), static_cast<std::size_t>(got));
  }
}

std::string executable(const std::string& program) {
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  return program.empty() ? self : self.parent_path() / program;
}

// As exec wants them, null at the end.
std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> result(texts.size() + 1);
  std::transform(texts.begin(), texts.end(), result.begin(),
                 [](std::string& text) { return text.data(); });
  return result;
}

}  // namespace

int run_subject(const std::string& configuration, MakeWork make_work) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::ofstream("/proc/self/oom_score_adj") << 1000;  // short of memory, a benchmark goes first
  try {
    const auto work = make_work(json::parse(configuration));
    expect_huge_pages(proc_bytes("/proc/self/status", "RssAnon"));
    if (!write_line(STDOUT_FILENO, work->facts())) return 1;
    std::string buffer;
    for (std::string line; read_line(STDIN_FILENO, buffer, line);)
      if (!write_line(STDOUT_FILENO, work->answer(json::parse(line)))) return 1;
    return 0;
  } catch (const std::exception& failure) {
    write_line(STDOUT_FILENO, {{"error", failure.what()}});
    return 1;
  }
}

Subject::Subject(const json& configuration, const std::string& program,
                 const std::vector<std::string>& environment) {
  std::array<int, 2> to{};
  std::array<int, 2> from{};
  if (pipe2(to.data(), O_CLOEXEC) != 0)
    throw std::system_error(errno, std::system_category(), "pipe2");
  if (pipe2(from.data(), O_CLOEXEC) != 0) {
    close(to[0]);
    close(to[1]);
    throw std::system_error(errno, std::system_category(), "pipe2");
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
  const std::string path = executable(program);
  name_ = std::filesystem::path(path).filename();
  std::vector<std::string> arguments = {path, "--subject", configuration.dump()};
  std::vector<std::string> variables = environment;
  for (char** variable = environ; *variable != nullptr; ++variable)
    variables.emplace_back(*variable);
  const auto argv = pointers_to(arguments);
  const auto envp = pointers_to(variables);
  const int error = posix_spawn(&pid_, path.c_str(), &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  close(to[0]);
  close(from[1]);
  to_ = to[1];
  from_ = from[0];
  if (error != 0) {
    close(to_);
    close(from_);
    throw std::runtime_error(fmt::format("{} cannot be started: {}", path, std::strerror(error)));
  }
  try {
    facts_ = read_answer();
  } catch (...) {
    close(to_);
    close(from_);
    if (pid_ != 0) waitpid(pid_, nullptr, 0);
    throw;
  }
}

Subject::~Subject() {
  close(to_);
  close(from_);
  if (pid_ != 0) waitpid(pid_, nullptr, 0);
}

std::runtime_error Subject::failure_of_end() {
  int status = 0;
  waitpid(std::exchange(pid_, 0), &status, 0);
  if (WIFSIGNALED(status)) {
    return std::runtime_error(fmt::format(
        "{} was killed by signal {} ({}){}", name_, WTERMSIG(status), strsignal(WTERMSIG(status)),
        WTERMSIG(status) == SIGKILL ? ": is there memory enough?" : ""));
  }
  return std::runtime_error(fmt::format(
      "{} ended before it answered, with exit code {}: what it said, if anything, is above", name_,
      WEXITSTATUS(status)));
}

json Subject::read_answer() {
  std::string line;
  if (!read_line(from_, buffer_, line)) throw failure_of_end();
  json answer = json::parse(line, nullptr, false);
  if (answer.is_discarded()) throw std::runtime_error(name_ + " said what is no answer: " + line);
  if (answer.contains("error"))
    throw std::runtime_error(name_ + ": " + answer["error"].get<std::string>());
  return answer;
}

json Subject::ask(const json& question) {
  if (!write_line(to_, question)) throw failure_of_end();
  return read_answer();
}

}  // namespace cowshed::bench
