#include "by_hand.h"

#include <cstring>
#include <fcntl.h>
#include <spawn.h>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "peer.h"

namespace cowshed::bench {
namespace {

// Descriptors of an executed worker.
constexpr int kData = 100;
constexpr int kReply = 101;
constexpr int kEnd = 102;
constexpr const char* kSelf = "/proc/self/exe";

void open_pipe(std::array<int, 2>& ends) {
  if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
}

bool read_all(int fd, void* to, std::size_t size) {
  for (auto* at = static_cast<std::byte*>(to); size > 0;) {
    const ssize_t got = read(fd, at, size);
    if (got <= 0) return false;
    at += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

void write_all(int fd, const void* from, std::size_t size) {
  for (const auto* at = static_cast<const std::byte*>(from); size > 0;) {
    const ssize_t wrote = write(fd, at, size);
    if (wrote <= 0) throw std::runtime_error("a worker does not read its data");
    at += wrote;
    size -= static_cast<std::size_t>(wrote);
  }
}

void wait_for_end(int fd) {
  char nothing = 0;
  while (read(fd, &nothing, 1) > 0) {
  }
}

// Both start this program again with the descriptors; `data` may be -1.  The PID, or -1.
pid_t vfork_worker(int reply, int end, int data, char** arguments) {
  const pid_t pid = vfork();  // NOLINT: measured
  if (pid != 0) return pid;
  dup2(reply, kReply);
  dup2(end, kEnd);
  if (data >= 0) dup2(data, kData);
  execv(kSelf, arguments);
  _exit(127);
}
pid_t spawn_worker(int reply, int end, int data, char** arguments) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, reply, kReply);
  posix_spawn_file_actions_adddup2(&actions, end, kEnd);
  if (data >= 0) posix_spawn_file_actions_adddup2(&actions, data, kData);
  pid_t pid = -1;
  if (posix_spawn(&pid, kSelf, &actions, nullptr, arguments, environ) != 0) pid = -1;
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

}  // namespace

Reply reply_about(WordsOfData words, Part part, std::uint64_t begun) {
  const std::uint64_t sum = sum_of(words, part);
  return {begun, now_ns(), sum};
}

// --worker MEMORY BYTES PART
std::optional<int> run_as_worker(int argc, char** argv) {
  if (argc != 5 || std::strcmp(argv[1], "--worker") != 0) return std::nullopt;
  const std::uint64_t begun = now_ns();
  const std::string memory = argv[2];
  const std::size_t bytes = std::stoull(argv[3]);
  std::vector<std::uint64_t> received;
  WordsOfData words;
  if (memory == "memfd") {
    void* mapped = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, kData, 0);
    if (mapped == MAP_FAILED) return 1;
    words = {static_cast<const std::uint64_t*>(mapped), bytes / sizeof(std::uint64_t)};
  } else if (memory != "none") {
    received.resize(bytes / sizeof(std::uint64_t));
    if (!read_all(kData, received.data(), bytes)) return 1;
    words = received;
  }
  const Reply reply =
      reply_about(words, std::stoi(argv[4]) != 0 ? Part::each_page : Part::some, begun);
  if (write(kReply, &reply, sizeof reply) != sizeof reply) return 1;
  wait_for_end(kEnd);
  _exit(0);  // as forked workers do
}

WorkerByHand::WorkerByHand(const std::string& method, const Holding& holding, Part part) {
  open_pipe(reply_);
  open_pipe(end_);
  if (method == "thread") {
    thread_ = std::thread([this, &holding, part] {
      const Reply reply = reply_about(holding.words(), part, now_ns());
      write_all(reply_[1], &reply, sizeof reply);
      wait_for_end(end_[0]);
    });
    return;
  }
  if (method == "bare_fork") {
    pid_ = fork();
    if (pid_ == 0) be_forked(holding, part);
  } else {
    execute(method == "vfork", holding, part);
  }
  if (pid_ < 0) throw std::runtime_error("no worker can be started");
  close(std::exchange(reply_[1], -1));
  close(std::exchange(end_[0], -1));
}

void WorkerByHand::be_forked(const Holding& holding, Part part) const {
  const Reply reply = reply_about(holding.words(), part, now_ns());
  if (write(reply_[1], &reply, sizeof reply) != sizeof reply) _exit(1);
  // Without the other ends, its own and those of other workers, which would keep them waiting.
  dup2(end_[0], kEnd);
  close_range(STDERR_FILENO + 1, kEnd - 1, 0);
  close_range(kEnd + 1, ~0U, 0);
  wait_for_end(kEnd);
  _exit(0);
}

void WorkerByHand::execute(bool by_vfork, const Holding& holding, Part part) {
  const bool by_pipe = holding.memfd() < 0 && !holding.words().empty();
  std::array<int, 2> data{-1, -1};
  if (by_pipe) {
    open_pipe(data);
    fcntl(data[1], F_SETPIPE_SZ, 1 << 20);
  }
  const int from = by_pipe ? data[0] : holding.memfd();
  const std::string bytes = std::to_string(holding.words().size_bytes());
  const char* all = part == Part::each_page ? "1" : "0";
  std::array<char*, 6> arguments = {const_cast<char*>("worker"),
                                    const_cast<char*>("--worker"),
                                    const_cast<char*>(holding.memory().c_str()),
                                    const_cast<char*>(bytes.c_str()),
                                    const_cast<char*>(all),
                                    nullptr};
  pid_ = (by_vfork ? vfork_worker : spawn_worker)(reply_[1], end_[0], from, arguments.data());
  if (!by_pipe) return;
  close(data[0]);
  write_all(data[1], holding.words().data(), holding.words().size_bytes());
  close(data[1]);
}

Reply WorkerByHand::reply() {
  Reply reply;
  if (!read_all(reply_[0], &reply, sizeof reply)) throw std::runtime_error("a worker has failed");
  return reply;
}

WorkerByHand::~WorkerByHand() {
  close(end_[1]);
  if (thread_.joinable()) thread_.join();
  else if (pid_ > 0) waitpid(pid_, nullptr, 0);
  for (const int fd : {reply_[0], reply_[1], end_[0]})
    if (fd >= 0) close(fd);
}

}  // namespace cowshed::bench
