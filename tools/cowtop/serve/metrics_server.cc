#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fmt/format.h>
#include <functional>
#include <httplib.h>
#include <mutex>
#include <netdb.h>
#include <poll.h>
#include <semaphore>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include <cowshed/tools/cowtop/serve/metrics_server.h>
#include <cowshed/tools/cowtop/serve/metrics_text.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kThreads = 8;
// Connections that have a descriptor here; the others wait in the kernel.
constexpr std::ptrdiff_t kMostConnections = 64;
constexpr std::size_t kMostRequestBytes = 4096;
// Of a connection, from when it was taken to its end; but so long at least for who comes to a
// thread late, and has sent its request meanwhile.
constexpr auto kTimeout = std::chrono::seconds(2);
constexpr auto kLeastTime = std::chrono::milliseconds(100);

using Clock = std::chrono::steady_clock;

constexpr const char* kPage = R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>cowtop serve</title></head>
<body><h1>cowtop serve</h1>
<p>Memory that forked processes copied although they meant to share it, for Prometheus:
<a href="/metrics">/metrics</a>.</p></body></html>
)";

// Of the connection that this thread serves.
thread_local Clock::time_point deadline;

// httplib's own would take any number of connections, and a descriptor for each.  A connection's
// time begins here, so that those that wait for a thread behind idle ones do not add up.
class BoundedQueue : public httplib::TaskQueue {
 public:
  void enqueue(std::function<void()> task) override {
    room_.acquire();
    pool_.enqueue([this, task = std::move(task), until = Clock::now() + kTimeout] {
      deadline = std::max(until, Clock::now() + kLeastTime);
      task();
      room_.release();
    });
  }
  void shutdown() override { pool_.shutdown(); }

 private:
  std::counting_semaphore<kMostConnections> room_{kMostConnections};
  httplib::ThreadPool pool_{kThreads};
};

// httplib's own has a time for each read and write, of which a slow client may take any number.
class TimedStream : public httplib::Stream {
 public:
  explicit TimedStream(int socket) : socket_(socket) {}
  bool is_readable() const override { return is_ready(POLLIN); }
  bool is_writable() const override { return is_ready(POLLOUT); }
  ssize_t read(char* bytes, std::size_t size) override {
    return is_readable() ? ::recv(socket_, bytes, size, MSG_DONTWAIT) : -1;
  }
  ssize_t write(const char* bytes, std::size_t size) override {
    return is_writable() ? ::send(socket_, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL) : -1;
  }
  // Nobody asks who it is.
  void get_remote_ip_and_port(std::string& /*ip*/, int& /*port*/) const override {}
  void get_local_ip_and_port(std::string& /*ip*/, int& /*port*/) const override {}
  socket_t socket() const override { return socket_; }

 private:
  bool is_ready(short events) const {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd poll{socket_, events, 0};
    return left.count() > 0 && ::poll(&poll, 1, static_cast<int>(left.count())) > 0;
  }

  int socket_;
};

class Server : public httplib::Server {
 private:
  // One request: who waits for another one's would keep a thread.
  bool process_and_close_socket(int socket) override {
    TimedStream stream(socket);
    bool is_closed = false;
    const bool is_served = process_request(stream, true, is_closed, nullptr);
    ::shutdown(socket, SHUT_RDWR);
    ::close(socket);
    return is_served;
  }
};

}  // namespace

struct MetricsServer::State {
  Server server;
  ListenAddress address;
  std::mutex mutex;
  std::shared_ptr<const Metrics> newest = std::make_shared<const Metrics>();
  std::thread listener;

  std::shared_ptr<const Metrics> metrics() {
    const std::lock_guard lock(mutex);
    return newest;
  }
  void set_up();
};

void MetricsServer::State::set_up() {
  server.new_task_queue = [] { return new BoundedQueue; };  // which httplib deletes
  server.set_payload_max_length(kMostRequestBytes);
  // Not SO_REUSEPORT, as httplib: two would share a port, and each get half of the requests.
  server.set_socket_options([](int socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  server.set_pre_routing_handler([](const httplib::Request& request, httplib::Response& response) {
    if (request.method == "GET" || request.method == "HEAD") {
      return httplib::Server::HandlerResponse::Unhandled;
    }
    response.status = 405;  // RFC 9110, 15.5.6
    response.set_header("Allow", "GET, HEAD");
    return httplib::Server::HandlerResponse::Handled;
  });
  server.Get("/metrics", [this](const httplib::Request& request, httplib::Response& response) {
    const MetricsFormat format = wanted_format(request.get_header_value("Accept"));
    response.set_content(metrics_text(*metrics(), format), content_type(format));
  });
  server.Get("/", [](const httplib::Request& /*request*/, httplib::Response& response) {
    response.set_content(kPage, "text/html; charset=utf-8");
  });
  server.set_error_handler([](const httplib::Request& /*request*/, httplib::Response& response) {
    response.set_content(fmt::format("{}: there is /metrics\n", response.status), "text/plain");
  });
}

MetricsServer::MetricsServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
MetricsServer::~MetricsServer() { stop(); }

Expected<std::unique_ptr<MetricsServer>> MetricsServer::open(const ListenAddress& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(address.host.c_str(), nullptr, &hints, &found); error != 0) {
    return make_error(ErrorCode::system_call,
                      fmt::format("--listen {}: {}", text_of(address), ::gai_strerror(error)));
  }
  ::freeaddrinfo(found);
  auto state = std::make_unique<State>();
  state->address = address;
  state->set_up();
  errno = 0;
  if (address.port == 0) {
    state->address.port = state->server.bind_to_any_port(address.host);
  } else if (!state->server.bind_to_port(address.host, address.port)) {
    state->address.port = -1;
  }
  if (state->address.port < 0) {
    return system_error("--listen " + text_of(address), errno == 0 ? EADDRNOTAVAIL : errno);
  }
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(state)));
}

const ListenAddress& MetricsServer::address() const { return state_->address; }

void MetricsServer::publish(Metrics metrics) {
  auto newest = std::make_shared<const Metrics>(std::move(metrics));
  const std::lock_guard lock(state_->mutex);
  state_->newest = std::move(newest);
}

void MetricsServer::start() {
  state_->listener = std::thread([state = state_.get()] { state->server.listen_after_bind(); });
  // Before that, stop() would have no effect.
  while (!state_->server.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

void MetricsServer::stop() {
  if (!state_->listener.joinable()) return;
  state_->server.stop();
  state_->listener.join();
}

}  // namespace cowshed::cowtop
