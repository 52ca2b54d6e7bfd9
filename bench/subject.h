#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <sys/types.h>
#include <vector>

// One process per variant: a benchmark starts itself (or a sibling program) again with a
// configuration; that process prepares, says so, and then answers questions until its input ends.
// Both speak in lines of JSON over pipes.
namespace cowshed::bench {

// What a subject process does.  Exceptions of its constructor and of answer() reach the driver.
class SubjectWork {
 public:
  SubjectWork() = default;
  virtual ~SubjectWork() = default;
  SubjectWork(const SubjectWork&) = delete;
  SubjectWork& operator=(const SubjectWork&) = delete;

  virtual nlohmann::json facts() const { return nlohmann::json::object(); }  // once, when ready
  virtual nlohmann::json answer(const nlohmann::json& question) = 0;
};

// An answer that is one time.
inline nlohmann::json nanoseconds(double value) { return {{"ns", value}}; }

using MakeWork = std::unique_ptr<SubjectWork> (*)(const nlohmann::json& configuration);

// The subject's main(): the exit code.
int run_subject(const std::string& configuration, MakeWork make_work);

// The driver's side.  Throws std::runtime_error with the subject's message when it fails.
class Subject {
 public:
  // `program` is empty for this executable, or the name of one beside it.  `environment` adds
  // "NAME=value" to ours.  Returns when the subject is ready.
  explicit Subject(const nlohmann::json& configuration, const std::string& program = "",
                   const std::vector<std::string>& environment = {});
  ~Subject();
  Subject(const Subject&) = delete;
  Subject& operator=(const Subject&) = delete;

  const nlohmann::json& facts() const { return facts_; }
  nlohmann::json ask(const nlohmann::json& question);

 private:
  nlohmann::json read_answer();
  std::runtime_error failure_of_end();

  std::string name_;  // of its program
  pid_t pid_ = 0;     // 0: it has been waited for
  int to_ = -1;
  int from_ = -1;
  std::string buffer_;
  nlohmann::json facts_;
};

}  // namespace cowshed::bench
