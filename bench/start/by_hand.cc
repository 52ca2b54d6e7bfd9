#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../family.h"
#include "workers.h"

namespace cowshed::bench {
namespace {

// Descriptors of an executed worker.
constexpr int kSocket = 100;
constexpr int kData = 101;

void say_and_stay(int socket, const Reply& reply) {
  if (write(socket, &reply, sizeof reply) != sizeof reply) return;
  char nothing = 0;
  while (read(socket, &nothing, 1) > 0) continue;
}

// Both start this program again; `data` may be -1.  The PID, or -1.
pid_t vfork_worker(int socket, int data, char** arguments) {
  const pid_t pid = vfork();  // NOLINT: measured
  if (pid != 0) return pid;
  dup2(socket, kSocket);
  if (data >= 0) dup2(data, kData);
  execv("/proc/self/exe", arguments);
  _exit(127);
}
pid_t spawn_worker(int socket, int data, char** arguments) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, socket, kSocket);
  if (data >= 0) posix_spawn_file_actions_adddup2(&actions, data, kData);
  pid_t pid = -1;
  if (posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, arguments, environ) != 0) pid = -1;
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

}  // namespace

// --worker MEMORY BYTES PART
std::optional<int> run_as_worker(int argc, char** argv) {
  if (argc != 5 || std::strcmp(argv[1], "--worker") != 0) return std::nullopt;
  const std::uint64_t begun = now_ns();
  const std::string memory = argv[2];
  const std::size_t bytes = std::stoull(argv[3]);
  std::vector<std::uint64_t> received;
  WordsOfData words;
  if (memory == "memfd") {
    words = {static_cast<const std::uint64_t*>(map_memfd(kData, bytes, PROT_READ)),
             bytes / sizeof(std::uint64_t)};
  } else if (memory != "none") {
    received.resize(bytes / sizeof(std::uint64_t));
    if (std::fread(received.data(), 1, bytes, fdopen(kData, "r")) != bytes) return 1;
    words = received;
  }
  say_and_stay(kSocket, reply_about(words, static_cast<Part>(std::stoi(argv[4])), begun));
  _exit(0);  // as forked workers do
}

WorkerByHand::WorkerByHand(const std::string& method, const Holding& holding, Part part) {
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets_.data()) != 0)
    throw std::runtime_error("socketpair");
  if (method == "thread") {
    thread_ = std::thread([this, &holding, part] {
      say_and_stay(sockets_[1], reply_about(holding.words, part, now_ns()));
    });
    return;
  }
  if (method != "bare_fork") execute(method == "vfork", holding, part);
  else if ((pid_ = fork()) == 0) {
    say_and_stay(sockets_[1], reply_about(holding.words, part, now_ns()));
    _exit(0);
  }
  close(std::exchange(sockets_[1], -1));
  if (pid_ < 0) throw std::runtime_error("no worker can be started");
}

void WorkerByHand::execute(bool by_vfork, const Holding& holding, Part part) {
  const bool by_pipe = holding.memfd < 0 && !holding.words.empty();
  std::array<int, 2> data{holding.memfd, -1};
  if (by_pipe && (pipe2(data.data(), O_CLOEXEC) != 0 || fcntl(data[1], F_SETPIPE_SZ, 1_MiB) < 0))
    throw std::runtime_error("no pipe of 1 MiB");
  Words words = {"worker", "--worker", holding.memory, std::to_string(holding.words.size_bytes()),
                 std::to_string(static_cast<int>(part))};
  pid_ = (by_vfork ? vfork_worker : spawn_worker)(sockets_[1], data[0], pointers_to(words).data());
  if (!by_pipe) return;
  close(data[0]);
  FILE* file = fdopen(data[1], "w");
  std::fwrite(holding.words.data(), 1, holding.words.size_bytes(), file);
  std::fclose(file);
}

Reply WorkerByHand::reply() {
  Reply reply;
  if (read(sockets_[0], &reply, sizeof reply) != sizeof reply)
    throw std::runtime_error("a worker has failed");
  return reply;
}

WorkerByHand::~WorkerByHand() {
  shutdown(sockets_[0], SHUT_RDWR);  // of all descriptors, also those that forked workers inherit
  if (thread_.joinable()) thread_.join();
  else if (pid_ > 0) waitpid(pid_, nullptr, 0);
  close(sockets_[0]);
  if (sockets_[1] >= 0) close(sockets_[1]);
}

}  // namespace cowshed::bench
