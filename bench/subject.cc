#include "subject.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <iterator>
#include <map>
#include <spawn.h>
#include <sstream>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cowshed::bench {
namespace {

std::map<std::string, Answer (*)(const Words&)>& kinds() {
  static std::map<std::string, Answer (*)(const Words&)> all;
  return all;
}

bool read_line(FILE* file, std::string& line) {
  line.clear();
  for (int c = 0; (c = std::getc(file)) != EOF; line += static_cast<char>(c))
    if (c == '\n') return true;
  return false;
}

void say(const std::string& line) {
  std::fputs((line + "\n").c_str(), stdout);
  std::fflush(stdout);
}

Words words_of(const std::string& line) {
  std::istringstream text(line);
  return {std::istream_iterator<std::string>(text), {}};
}

// As exec wants them, null at the end.
std::vector<char*> pointers_to(Words& words) {
  std::vector<char*> result(words.size() + 1);
  std::transform(words.begin(), words.end(), result.begin(),
                 [](auto& word) { return word.data(); });
  return result;
}

}  // namespace

SubjectKind::SubjectKind(const std::string& name, Answer (*prepare)(const Words& arguments)) {
  kinds()[name] = prepare;
}

std::optional<int> run_as_subject(int argc, char** argv) {
  const Words arguments(argv + 1, argv + argc);
  if (arguments.size() < 2 || arguments[0] != "--subject") return std::nullopt;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::ofstream("/proc/self/oom_score_adj") << 1000;  // short of memory, a benchmark goes first
  try {
    const Answer answer = kinds().at(arguments[1])({arguments.begin() + 2, arguments.end()});
    say("");
    for (std::string line; read_line(stdin, line);)
      say(fmt::format("{}", fmt::join(answer(words_of(line)), " ")));
    return 0;
  } catch (const std::exception& failure) {
    say(std::string("error ") + failure.what());
    return 1;
  }
}

Subject::Subject(const Words& arguments, const Words& environment, const std::string& program)
    : name_(fmt::format("{}", fmt::join(arguments, " "))) {
  std::array<int, 2> to{};
  std::array<int, 2> from{};
  if (pipe2(to.data(), O_CLOEXEC) != 0 || pipe2(from.data(), O_CLOEXEC) != 0)
    throw std::runtime_error("pipe2");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  const std::string path = program.empty() ? self : self.parent_path() / program;
  Words words = {path, "--subject"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  Words variables = environment;
  for (char** variable = environ; *variable != nullptr; ++variable)
    variables.emplace_back(*variable);
  const int error = posix_spawn(&pid_, path.c_str(), &actions, nullptr, pointers_to(words).data(),
                                pointers_to(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  close(to[0]);
  close(from[1]);
  to_ = fdopen(to[1], "w");
  from_ = fdopen(from[0], "r");
  if (error != 0) throw std::runtime_error(path + " cannot be started");
  read_answer();
}

Subject::~Subject() {
  std::fclose(to_);
  std::fclose(from_);
  waitpid(pid_, nullptr, 0);
}

std::vector<double> Subject::read_answer() {
  std::string line;
  if (!read_line(from_, line)) {
    throw std::runtime_error(
        fmt::format("the process '{}' has ended: is there enough memory?", name_));
  }
  if (line.starts_with("error ")) throw std::runtime_error(name_ + ": " + line.substr(6));
  std::vector<double> numbers;
  for (const std::string& word : words_of(line)) numbers.push_back(std::stod(word));
  return numbers;
}

std::vector<double> Subject::ask(const std::string& question) {
  std::fputs((question + "\n").c_str(), to_);
  std::fflush(to_);
  return read_answer();
}

}  // namespace cowshed::bench
