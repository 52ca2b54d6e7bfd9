#include <cerrno>
#include <chrono>
#include <fmt/format.h>
#include <functional>
#include <future>
#include <httplib.h>
#include <mutex>
#include <netdb.h>
#include <semaphore>
#include <sys/socket.h>
#include <thread>
#include <utility>

#include <cowshed/tools/cowtop/serve/metrics_server.h>
#include <cowshed/tools/cowtop/serve/metrics_text.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kThreads = 8;
// Connections that have a descriptor here; the others wait in the kernel.
constexpr std::ptrdiff_t kMostConnections = 64;
constexpr std::size_t kMostRequestBytes = 4096;
constexpr auto kTimeout = std::chrono::seconds(2);
constexpr auto kTimeToStop = std::chrono::seconds(3);

constexpr const char* kPage = R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>cowtop serve</title></head>
<body><h1>cowtop serve</h1>
<p>Memory that forked processes copied although they meant to share it, for Prometheus:
<a href="/metrics">/metrics</a>.</p></body></html>
)";

// httplib's own would take any number of connections, and a descriptor for each.
class BoundedQueue : public httplib::TaskQueue {
 public:
  void enqueue(std::function<void()> task) override {
    room_.acquire();
    pool_.enqueue([this, task = std::move(task)] {
      task();
      room_.release();
    });
  }
  void shutdown() override { pool_.shutdown(); }

 private:
  std::counting_semaphore<kMostConnections> room_{kMostConnections};
  httplib::ThreadPool pool_{kThreads};
};

}  // namespace

struct MetricsServer::State {
  httplib::Server server;
  ListenAddress address;
  std::mutex mutex;
  std::shared_ptr<const Metrics> newest = std::make_shared<const Metrics>();
  std::thread listener;
  std::promise<void> is_done;

  std::shared_ptr<const Metrics> metrics() {
    const std::lock_guard lock(mutex);
    return newest;
  }
  void set_up();
};

void MetricsServer::State::set_up() {
  server.new_task_queue = [] { return new BoundedQueue; };  // which httplib deletes
  server.set_read_timeout(kTimeout);
  server.set_write_timeout(kTimeout);
  server.set_keep_alive_timeout(kTimeout.count());
  server.set_payload_max_length(kMostRequestBytes);
  // Not SO_REUSEPORT, as httplib: two would share a port, and each get half of the requests.
  server.set_socket_options([](int socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
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
  state_->listener = std::thread([state = state_.get()] {
    state->server.listen_after_bind();
    state->is_done.set_value();
  });
  // Before that, stop() would have no effect.
  while (!state_->server.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

bool MetricsServer::stop() {
  if (!state_->listener.joinable()) return true;
  state_->server.stop();
  if (state_->is_done.get_future().wait_for(kTimeToStop) != std::future_status::ready) return false;
  state_->listener.join();
  return true;
}

}  // namespace cowshed::cowtop
