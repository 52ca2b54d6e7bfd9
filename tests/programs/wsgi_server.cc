#include <csignal>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iostream>

#include <cowshed/tests/programs/wsgi_server.h>

namespace cowshed::test {

using ::testing::ElementsAre;
using ::testing::StartsWith;

void WsgiServer::SetUp() {
  RealProgram::SetUp();
  if (IsSkipped()) return;
  write("app.py",
        "import os\n"
        "items = [str(i) + 'x' * 10 for i in range(300000)]\n"
        "def application(environ, start_response):\n"
        "    which = items if environ['PATH_INFO'] == '/all' else []\n"
        "    total = sum(len(item) for item in which)\n"
        "    start_response('200 OK', [])\n"
        "    return [f'ready {os.getpid()}\\n'.encode()]\n");
}

std::string WsgiServer::get(const std::string& path) const {
  return run({kPython, "-c",
              "import socket, sys\n"
              "link = socket.socket(socket.AF_UNIX)\n"
              "link.connect(sys.argv[1])\n"
              "link.sendall(b'GET ' + sys.argv[2].encode() + b' HTTP/1.0\\r\\n\\r\\n')\n"
              "while text := link.recv(4096): sys.stdout.write(text.decode())\n",
              socket(), path})
      .out;
}

double WsgiServer::copies_of_request(const std::string& path, pid_t worker) const {
  const auto before = static_cast<double>(wpcopy_count(worker).value_or(0));
  EXPECT_EQ(pid_of(get(path)), worker);
  return static_cast<double>(wpcopy_count(worker).value_or(0)) - before;
}

Json WsgiServer::worker_of(const std::vector<std::string>& server, const std::string& ready) {
  Subprocess measured(cowtop(server, kSeldom));
  const std::string said = measured.read_until(ready).err;
  const pid_t worker = pid_of(get("/none"));
  EXPECT_GT(worker, 0) << said;
  const double for_nothing = copies_of_request("/none", worker);
  const double for_reading = copies_of_request("/all", worker);
  EXPECT_GT(for_reading, 10 * for_nothing);
  ::kill(measured.pid(), SIGTERM);
  const MeasuredRun run = finish(measured);
  const Json& ours = run.process(worker);
  if (!ours.is_object()) {
    ADD_FAILURE() << "no worker";
    return ours;
  }
  show(server.at(0), run, worker);
  std::cout << "  the request: " << for_reading << " by taskstats\n";
  // At its end the interpreter takes itself apart, and counts on.
  const double all = ours.at("copied_pages");
  expect_share(ours, "reference count", for_reading / all, 1);
  EXPECT_EQ(patterns(ours).at(0), "reference count");
  EXPECT_EQ(mappings(ours, 1), std::vector<std::string>{"anonymous"});
  EXPECT_THAT(places(ours, 1), ElementsAre(StartsWith("_PyEval_EvalFrameDefault (")));
  expect_copies(ours.at("sites").at(0), ours, for_reading - for_nothing, for_reading);
  return ours;
}

}  // namespace cowshed::test
