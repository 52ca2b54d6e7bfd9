#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cowshed/tools/search/links.h>

namespace cowshed::search {
namespace {

// Before each message.
struct Header {
  std::uint64_t query;
  std::uint64_t size;
};

constexpr std::uint64_t kSummary = ~std::uint64_t{0};  // in place of a query's number

void close_all(std::vector<int>& descriptors) {
  for (const int fd : descriptors) {
    close(fd);
  }
  descriptors.clear();
}

// Takes the whole messages off the front.
void parse(std::string& buffer, WorkerMessages& messages) {
  std::size_t at = 0;
  Header header{};
  while (buffer.size() - at >= sizeof header) {
    std::memcpy(&header, buffer.data() + at, sizeof header);
    if (buffer.size() - at - sizeof header < header.size) {
      break;
    }
    const char* payload = buffer.data() + at + sizeof header;
    if (header.query == kSummary) {
      std::memcpy(&messages.summary, payload, sizeof messages.summary);
      messages.complete = true;
    } else {
      messages.answers.emplace_back(header.query, std::string(payload, header.size));
    }
    at += sizeof header + header.size;
  }
  buffer.erase(0, at);
}

Expected<void> send_bytes(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno != EINTR) {
      return system_error("sending answers to the parent", errno);
    }
  }
  return {};
}

}  // namespace

Expected<Links> Links::create(std::size_t count) {
  Links links;
  for (std::size_t i = 0; i < count; ++i) {
    std::array<int, 2> ends;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      return system_error("socketpair", errno);
    }
    links.parent_ends_.push_back(ends[0]);
    links.worker_ends_.push_back(ends[1]);
  }
  return links;
}

Links::~Links() {
  close_all(parent_ends_);
  close_all(worker_ends_);
}

void Links::keep_only(std::size_t rank) {
  own_ = dup(worker_ends_[rank]);
  close_all(parent_ends_);
  close_all(worker_ends_);
  worker_ends_.push_back(own_);
}

Expected<void> Links::send(std::uint64_t query, std::string_view payload) const {
  const Header header{query, payload.size()};
  std::string message(sizeof header, '\0');
  std::memcpy(message.data(), &header, sizeof header);
  message += payload;
  return send_bytes(own_, message);
}

Expected<void> Links::send_answer(std::uint64_t query, std::string_view answer) const {
  return send(query, answer);
}

Expected<void> Links::send_summary(const WorkerSummary& summary) const {
  return send(kSummary, {reinterpret_cast<const char*>(&summary), sizeof summary});
}

void Links::wait_for_signal() const {
  char ignored = 0;
  while (recv(own_, &ignored, 1, 0) < 0 && errno == EINTR) {
  }
}

void Links::begin() const {
  for (const int fd : parent_ends_) {
    ::send(fd, "", 1, MSG_NOSIGNAL);  // one that is gone is found by collect()
  }
}

Expected<std::vector<WorkerMessages>> Links::collect() {
  close_all(worker_ends_);  // so that a dead worker's end is closed
  std::vector<WorkerMessages> messages(parent_ends_.size());
  std::vector<std::string> buffers(parent_ends_.size());
  std::vector<pollfd> waiting;
  for (const int fd : parent_ends_) {
    waiting.push_back({fd, POLLIN, 0});
  }
  std::vector<char> chunk(1U << 18U);
  while (std::any_of(waiting.begin(), waiting.end(), [](const pollfd& p) { return p.fd >= 0; })) {
    if (poll(waiting.data(), waiting.size(), -1) < 0 && errno != EINTR) {
      return system_error("poll", errno);
    }
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      if (waiting[i].fd < 0 || waiting[i].revents == 0) {
        continue;
      }
      const ssize_t got = recv(waiting[i].fd, chunk.data(), chunk.size(), MSG_DONTWAIT);
      if (got > 0) {
        buffers[i].append(chunk.data(), static_cast<std::size_t>(got));
        parse(buffers[i], messages[i]);
      }
      const bool again = got < 0 && (errno == EINTR || errno == EAGAIN);
      if (messages[i].complete || (got <= 0 && !again)) {
        waiting[i].fd = -1;
      }
    }
  }
  return messages;
}

void Links::dismiss() { close_all(parent_ends_); }

}  // namespace cowshed::search
