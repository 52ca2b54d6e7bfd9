#include "subject.h"

#include <array>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cowshed::bench {
namespace {

std::map<std::string, Answer (*)(const Words&)>& kinds() {
  static std::map<std::string, Answer (*)(const Words&)> all;
  return all;
}

}  // namespace

Words words_of(const std::string& line) {
  std::istringstream text(line);
  return {std::istream_iterator<std::string>(text), {}};
}

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
    std::cout << std::endl;  // NOLINT: flushed, as each answer
    for (std::string line; std::getline(std::cin, line);)
      std::cout << fmt::format("{}", fmt::join(answer(words_of(line)), " "))
                << std::endl;  // NOLINT
    return 0;
  } catch (const std::exception& failure) {
    std::cout << "error " << failure.what() << '\n';
    return 1;
  }
}

std::vector<char*> pointers_to(Words& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

Subject::Subject(const Words& arguments, const Words& environment, const std::string& program)
    : name_(fmt::format("{}", fmt::join(arguments, " "))) {
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  const std::string path = program.empty() ? self : self.parent_path() / program;
  Words words = {path, "--subject"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  Words variables = environment;
  std::array<int, 2> sockets{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0)
    throw std::runtime_error("socketpair");
  pid_ = fork();
  if (pid_ == 0) {
    dup2(sockets[1], STDIN_FILENO);
    dup2(sockets[1], STDOUT_FILENO);
    for (std::string& variable : variables) putenv(variable.data());
    execv(path.c_str(), pointers_to(words).data());
    _exit(127);
  }
  close(sockets[1]);
  file_ = fdopen(sockets[0], "r+");
  read_answer();
}

Subject::~Subject() {
  std::fclose(file_);
  waitpid(pid_, nullptr, 0);
}

std::vector<double> Subject::read_answer() {
  std::array<char, 4096> line{};
  if (std::fgets(line.data(), line.size(), file_) == nullptr)
    throw std::runtime_error("the process '" + name_ + "' has ended: is there enough memory?");
  const std::string answer = line.data();
  if (answer.starts_with("error ")) throw std::runtime_error(name_ + ": " + answer.substr(6));
  std::vector<double> numbers;
  for (const std::string& word : words_of(answer)) numbers.push_back(std::stod(word));
  return numbers;
}

std::vector<double> Subject::ask(const std::string& question) {
  std::fputs((question + "\n").c_str(), file_);
  std::fflush(file_);
  return read_answer();
}

}  // namespace cowshed::bench
