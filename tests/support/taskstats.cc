#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/taskstats.h>
#include <sys/socket.h>
#include <system_error>

#include <cowshed/tests/support/taskstats.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {
namespace {

struct Request {
  nlmsghdr header = {};
  genlmsghdr generic = {};
  std::array<char, 64> attributes = {};

  Request(std::uint16_t family, std::uint8_t command, std::uint16_t attribute, const void* value,
          std::size_t size, std::uint16_t flags = 0) {
    nlattr head = {};
    head.nla_len = static_cast<std::uint16_t>(NLA_HDRLEN + size);
    head.nla_type = attribute;
    std::memcpy(attributes.data(), &head, sizeof head);
    std::memcpy(attributes.data() + NLA_HDRLEN, value, size);
    generic.cmd = command;
    generic.version = 1;
    header.nlmsg_len =
        static_cast<std::uint32_t>(NLMSG_LENGTH(GENL_HDRLEN) + NLA_ALIGN(head.nla_len));
    header.nlmsg_type = family;
    header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  }
};

using Answer = std::array<char, 4096>;

// The value of `attribute` among those between `at` and `end`; null if it is not there.
const char* find_attribute(const char* at, const char* end, int attribute, const char** value_end) {
  while (end - at >= NLA_HDRLEN) {
    nlattr head = {};
    std::memcpy(&head, at, sizeof head);
    if (head.nla_len < NLA_HDRLEN) return nullptr;
    if ((head.nla_type & NLA_TYPE_MASK) == attribute) {
      *value_end = at + head.nla_len;
      return at + NLA_HDRLEN;
    }
    at += NLA_ALIGN(head.nla_len);
  }
  return nullptr;
}

// The start of the answer's attributes, null if it is an error.
const char* exchange(int fd, const Request& request, Answer& answer, const char** end) {
  if (send(fd, &request, request.header.nlmsg_len, 0) < 0) return nullptr;
  const ssize_t got = recv(fd, answer.data(), answer.size(), 0);
  nlmsghdr header = {};
  if (got < static_cast<ssize_t>(sizeof header)) return nullptr;
  std::memcpy(&header, answer.data(), sizeof header);
  *end = answer.data() + std::min<std::size_t>(static_cast<std::size_t>(got), header.nlmsg_len);
  return header.nlmsg_type == NLMSG_ERROR ? nullptr : answer.data() + NLMSG_LENGTH(GENL_HDRLEN);
}

// 0 if there is none.
std::uint16_t taskstats_family(int fd) {
  Answer answer;
  const char* end = nullptr;
  const Request request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME,
                        TASKSTATS_GENL_NAME, sizeof TASKSTATS_GENL_NAME);
  const char* at = exchange(fd, request, answer, &end);
  if (at != nullptr) at = find_attribute(at, end, CTRL_ATTR_FAMILY_ID, &end);
  std::uint16_t id = 0;
  if (at != nullptr) std::memcpy(&id, at, sizeof id);
  return id;
}

// Those among the attributes, of a task or a whole process; nothing where there are none that we
// can read.
std::optional<taskstats> find_stats(const char* at, const char* end, int of) {
  at = find_attribute(at, end, of, &end);
  if (at != nullptr) at = find_attribute(at, end, TASKSTATS_TYPE_STATS, &end);
  if (at == nullptr) return std::nullopt;
  // The kernel's struct may be longer or shorter than our header's; version 15 moved fields.
  taskstats stats = {};
  std::memcpy(&stats, at, std::min(sizeof stats, static_cast<std::size_t>(end - at)));
  if (stats.version < 13 || stats.version == 15) return std::nullopt;
  return stats;
}

}  // namespace

std::optional<std::uint64_t> wpcopy_count(pid_t tgid) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (fd < 0) return std::nullopt;
  std::optional<taskstats> stats;
  if (const std::uint16_t family = taskstats_family(fd); family != 0) {
    Answer answer;
    const char* end = nullptr;
    const auto pid = static_cast<std::uint32_t>(tgid);
    const char* at =
        exchange(fd, Request(family, TASKSTATS_CMD_GET, TASKSTATS_CMD_ATTR_TGID, &pid, sizeof pid),
                 answer, &end);
    if (at != nullptr) stats = find_stats(at, end, TASKSTATS_TYPE_AGGR_TGID);
  }
  close(fd);
  return stats ? std::optional<std::uint64_t>(stats->wpcopy_count) : std::nullopt;
}

ExitAccounts::ExitAccounts() : fd_(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC)) {
  const auto fail = [&](const std::string& what) {
    const std::string reason = std::system_category().message(errno);
    if (fd_ >= 0) close(fd_);
    throw std::runtime_error(what + ": " + reason);
  };
  if (fd_ < 0) fail("netlink");
  const int bytes = 32 << 20;  // for all that the machine ends before somebody asks
  if (setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0) fail("SO_RCVBUF");
  const std::uint16_t family = taskstats_family(fd_);
  if (family == 0) fail("taskstats");
  std::string cpus;
  std::getline(std::ifstream("/sys/devices/system/cpu/possible"), cpus);
  const Request request(family, TASKSTATS_CMD_GET, TASKSTATS_CMD_ATTR_REGISTER_CPUMASK,
                        cpus.c_str(), cpus.size() + 1, NLM_F_ACK);
  if (send(fd_, &request, request.header.nlmsg_len, 0) < 0) fail("taskstats");
  // The first to come may be of a task that has ended already.
  for (;;) {
    Answer answer;
    const ssize_t got = recv(fd_, answer.data(), answer.size(), 0);
    if (got < static_cast<ssize_t>(sizeof(nlmsghdr) + sizeof(nlmsgerr))) fail("taskstats");
    nlmsghdr header = {};
    std::memcpy(&header, answer.data(), sizeof header);
    if (header.nlmsg_type == NLMSG_ERROR) {
      nlmsgerr error = {};
      std::memcpy(&error, answer.data() + NLMSG_HDRLEN, sizeof error);
      errno = -error.error;
      if (error.error != 0) fail("listening to the ends of tasks");
      return;
    }
    add(answer.data(), static_cast<std::size_t>(got));
  }
}

ExitAccounts::~ExitAccounts() { close(fd_); }

void ExitAccounts::add(const char* message, std::size_t size) {
  const auto stats =
      find_stats(message + NLMSG_LENGTH(GENL_HDRLEN), message + size, TASKSTATS_TYPE_AGGR_PID);
  if (stats) counts_[static_cast<pid_t>(stats->ac_tgid)] += stats->wpcopy_count;
}

const std::map<pid_t, std::uint64_t>& ExitAccounts::wpcopy_counts() {
  Answer answer;
  ssize_t got = 0;
  while ((got = recv(fd_, answer.data(), answer.size(), MSG_DONTWAIT)) > 0)
    if (got > static_cast<ssize_t>(NLMSG_LENGTH(GENL_HDRLEN)))
      add(answer.data(), static_cast<std::size_t>(got));
  if (got < 0 && errno != EAGAIN) {
    throw std::runtime_error("ends of tasks were dropped: " +
                             std::system_category().message(errno));
  }
  return counts_;
}

}  // namespace cowshed::test
