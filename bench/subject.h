#pragma once

#include <functional>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

// A fresh process for a benchmark: `bench --subject KIND ARGUMENT...`.  It prepares, and then
// answers questions until its input ends.  A question is a line of words, an answer a line of
// numbers.
namespace cowshed::bench {

using Words = std::vector<std::string>;
Words words_of(const std::string& line);
std::vector<char*> pointers_to(Words& words);  // as exec wants them, null at the end
using Answer = std::function<std::vector<double>(const Words& question)>;

// Registers a kind.  Exceptions of `prepare` and of the answer reach the benchmark.
struct SubjectKind {
  SubjectKind(const std::string& name, Answer (*prepare)(const Words& arguments));
};

// The exit code, if this process is a subject.
std::optional<int> run_as_subject(int argc, char** argv);

// Throws std::runtime_error with the subject's message if it fails.
class Subject {
 public:
  // `arguments` begin with the kind.  `environment` adds "NAME=value".  `program` lies beside this
  // executable; empty is this one.  Returns when the subject is ready.
  explicit Subject(const Words& arguments, const Words& environment = {},
                   const std::string& program = "");
  ~Subject();
  Subject(const Subject&) = delete;
  Subject& operator=(const Subject&) = delete;

  std::vector<double> ask(const std::string& question = "");

 private:
  std::vector<double> read_answer();

  std::string name_;
  pid_t pid_ = 0;
  FILE* file_ = nullptr;  // its input and output
};

}  // namespace cowshed::bench
