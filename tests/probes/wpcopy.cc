#include <algorithm>
#include <array>
#include <cstring>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/taskstats.h>
#include <sys/socket.h>
#include <unistd.h>

#include "subject.h"

namespace cowshed::test {
namespace {

struct Request {
  nlmsghdr header = {};
  genlmsghdr generic = {};
  std::array<char, 64> attributes = {};

  Request(std::uint16_t family, std::uint8_t command, std::uint16_t attribute, const void* value,
          std::size_t size) {
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
    header.nlmsg_flags = NLM_F_REQUEST;
  }
};

using Answer = std::array<char, 4096>;

// The value of `attribute` among those between `at` and `end`; null if it is not there.
const char* find_attribute(const char* at, const char* end, int attribute, const char** value_end) {
  while (end - at >= NLA_HDRLEN) {
    nlattr head = {};
    std::memcpy(&head, at, sizeof head);
    if (head.nla_len < NLA_HDRLEN) {
      return nullptr;
    }
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
  if (send(fd, &request, request.header.nlmsg_len, 0) < 0) {
    return nullptr;
  }
  const ssize_t got = recv(fd, answer.data(), answer.size(), 0);
  nlmsghdr header = {};
  if (got < static_cast<ssize_t>(sizeof header)) {
    return nullptr;
  }
  std::memcpy(&header, answer.data(), sizeof header);
  *end = answer.data() + std::min<std::size_t>(static_cast<std::size_t>(got), header.nlmsg_len);
  return header.nlmsg_type == NLMSG_ERROR ? nullptr : answer.data() + NLMSG_LENGTH(GENL_HDRLEN);
}

}  // namespace

std::optional<std::uint64_t> wpcopy_count(pid_t tgid) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (fd < 0) {
    return std::nullopt;
  }
  std::optional<std::uint64_t> count;
  Answer answer;
  const char* end = nullptr;
  const Request family(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, TASKSTATS_GENL_NAME,
                       sizeof TASKSTATS_GENL_NAME);
  const char* at = exchange(fd, family, answer, &end);
  if (at != nullptr) {
    at = find_attribute(at, end, CTRL_ATTR_FAMILY_ID, &end);
  }
  if (at != nullptr) {
    std::uint16_t id = 0;
    std::memcpy(&id, at, sizeof id);
    const auto pid = static_cast<std::uint32_t>(tgid);
    at = exchange(fd, Request(id, TASKSTATS_CMD_GET, TASKSTATS_CMD_ATTR_TGID, &pid, sizeof pid),
                  answer, &end);
  }
  if (at != nullptr) {
    at = find_attribute(at, end, TASKSTATS_TYPE_AGGR_TGID, &end);
  }
  if (at != nullptr) {
    at = find_attribute(at, end, TASKSTATS_TYPE_STATS, &end);
  }
  if (at != nullptr) {
    // The kernel's struct may be longer or shorter than our header's; version 15 moved fields.
    taskstats stats = {};
    std::memcpy(&stats, at, std::min(sizeof stats, static_cast<std::size_t>(end - at)));
    if (stats.version >= 13 && stats.version != 15) {
      count = stats.wpcopy_count;
    }
  }
  close(fd);
  return count;
}

}  // namespace cowshed::test
