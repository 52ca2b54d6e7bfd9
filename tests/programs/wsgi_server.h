#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/tests/programs/real_program.h>

namespace cowshed::test {

// Tests of a server of preloaded Python data, of one worker, on a socket of Unix.
class WsgiServer : public RealProgram {
 protected:
  explicit WsgiServer(const std::string& program) : RealProgram({kPython, program}) {}
  void SetUp() override;

  std::string socket() const { return file("socket"); }

  // Starts the server of this folder's app.py, which prints `ready` when it accepts; asks it to
  // read its list, and ends it.  What cowtop says of the worker, of which is expected what is the
  // same with every server; null where that failed.
  Json worker_of(const std::vector<std::string>& server, const std::string& ready);

 private:
  std::string get(const std::string& path) const;
  double copies_of_request(const std::string& path, pid_t worker) const;
};

}  // namespace cowshed::test
