#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <list>
#include <malloc.h>
#include <mutex>
#include <netdb.h>
#include <optional>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <thread>
#include <utility>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/serve/metrics_server.h>
#include <cowshed/tools/cowtop/serve/metrics_text.h>

namespace cowshed::cowtop {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Tcp = asio::ip::tcp;

// Accepted connections, each with a descriptor.  A further one ends the oldest that still sends its
// request, so that idle clients shut nobody out.
constexpr std::size_t kMostConnections = 64;
constexpr int kMostWaiting = 1024;  // in the kernel
constexpr std::uint64_t kMostRequestBytes = 4096;
constexpr auto kTimeout = std::chrono::seconds(2);  // of a whole connection
constexpr auto kAfterRefused = std::chrono::milliseconds(100);

constexpr const char* kProfilePath = "/debug/pprof/cow";
constexpr int kUsualSeconds = 30;
constexpr int kMostSeconds = 300;

constexpr const char* kPage = R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>cowtop serve</title></head>
<body><h1>cowtop serve</h1>
<p>Memory that forked processes copied although they meant to share it, for Prometheus:
<a href="/metrics">/metrics</a>.  What cowtop says of it: <a href="/findings.json">/findings.json</a>.</p>
<p>A profile for pprof: <a href="/debug/pprof/cow?seconds=30">/debug/pprof/cow?seconds=30</a>.</p>
</body></html>
)";

using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

void set_content(Response& response, std::string text, const char* type) {
  response.set(http::field::content_type, type);
  response.body() = std::move(text);
}

void set_failed(Response& response, http::status status,
                std::string_view why = "there are /metrics, /findings.json and /debug/pprof/cow") {
  response.result(status);
  set_content(response, fmt::format("{}: {}\n", static_cast<unsigned>(status), why), "text/plain");
}

// The path, and what follows '?'.
std::pair<std::string_view, std::string_view> parts_of(const Request& request) {
  const std::string_view target(request.target().data(), request.target().size());
  const std::size_t end = std::min(target.find('?'), target.size());
  return {target.substr(0, end), target.substr(std::min(end + 1, target.size()))};
}

bool may_ask(const Request& request, const ListenAddress& address) {
  const auto host = request[http::field::host];
  return may_ask_as({host.data(), host.size()}, address);
}

// Returns the time of the profile that the request may take; nullopt: it takes none.
std::optional<std::chrono::seconds> asked_profile(const Request& request,
                                                  const ListenAddress& address) {
  const auto [path, query] = parts_of(request);
  const bool is_asked = path == kProfilePath && request.method() == http::verb::get;
  return is_asked && may_ask(request, address) ? profile_seconds(query) : std::nullopt;
}

Response answer_to(const Request& request, const Metrics& metrics, const ListenAddress& address) {
  Response response(http::status::ok, request.version());
  const auto path = parts_of(request).first;
  const bool is_profile = path == kProfilePath;
  if (!may_ask(request, address)) {
    set_failed(response, http::status::misdirected_request);
  } else if (request.method() != http::verb::get &&
             (request.method() != http::verb::head || is_profile)) {
    set_failed(response, http::status::method_not_allowed);
    response.set(http::field::allow, is_profile ? "GET" : "GET, HEAD");  // RFC 9110, 15.5.6
  } else if (is_profile) {  // asked_profile() refuses it
    set_failed(response, http::status::bad_request,
               fmt::format("seconds is a whole number from 1 to {}", kMostSeconds));
  } else if (path == "/metrics") {
    const auto accept = request[http::field::accept];
    const MetricsFormat format = wanted_format({accept.data(), accept.size()});
    set_content(response, metrics_text(metrics, format), content_type(format));
  } else if (path == "/findings.json") {
    const cow::Measurement none;
    const cow::Measurement& latest = metrics.latest ? *metrics.latest : none;
    set_content(response, text_of(findings_json(latest)), "application/json");
  } else if (path == "/") {
    set_content(response, kPage, "text/html; charset=utf-8");
  } else {
    set_failed(response, http::status::not_found);
  }
  return response;
}

// Returns the answer to an unreadable request; nullopt: the client is gone.
std::optional<Response> answer_to(const error_code& unreadable) {
  Response response;
  if (unreadable == http::error::body_limit) {
    set_failed(response, http::status::payload_too_large);
  } else if (unreadable == http::error::header_limit) {
    set_failed(response, http::status::request_header_fields_too_large);
  } else if (unreadable.category() == http::make_error_code(http::error::bad_method).category() &&
             unreadable != http::error::end_of_stream) {
    set_failed(response, http::status::bad_request);
  } else {
    return std::nullopt;
  }
  return response;
}

// Whether it can be a name, an IPv4 address or, in brackets, an IPv6 address.
bool is_host(std::string_view text, bool in_brackets) {
  return !text.empty() && std::ranges::all_of(text, [&](char each) {
    const bool is_word = (each >= '0' && each <= '9') || (each >= 'a' && each <= 'z') ||
                         (each >= 'A' && each <= 'Z') || each == '.';
    return is_word || (in_brackets ? each == ':' || each == '%' : each == '-' || each == '_');
  });
}

}  // namespace

std::optional<std::chrono::seconds> profile_seconds(std::string_view query) {
  constexpr std::string_view kSeconds = "seconds=";
  int seconds = kUsualSeconds;
  while (!query.empty()) {
    const std::string_view each = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(each.size() + 1, query.size()));
    if (!each.starts_with(kSeconds)) continue;
    const char* const end = each.data() + each.size();
    const auto parsed = std::from_chars(each.data() + kSeconds.size(), end, seconds);
    if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  }
  if (seconds < 1 || seconds > kMostSeconds) return std::nullopt;
  return std::chrono::seconds(seconds);
}

Expected<ListenAddress> parse_listen_address(std::string_view text) {
  const auto wrong = [&] {
    return make_error(
        ErrorCode::invalid_argument,
        fmt::format("--listen: '{}' is not HOST:PORT, as 127.0.0.1:9417 or [::1]:9417", text));
  };
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return wrong();
  const std::string_view digits = text.substr(colon + 1);
  std::string_view host = text.substr(0, colon);
  const bool in_brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (in_brackets) host = host.substr(1, host.size() - 2);
  std::uint16_t port = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  const bool is_whole = parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
  if (!is_whole || !is_host(host, in_brackets)) return wrong();
  return ListenAddress{std::string(host), port};
}

std::string text_of(const ListenAddress& address) {
  const bool is_v6 = address.host.find(':') != std::string::npos;
  return (is_v6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

bool is_loopback(const ListenAddress& address) {
  return address.host == "localhost" || address.host == "::1" || address.host.starts_with("127.");
}

bool may_ask_as(std::string_view host, const ListenAddress& address) {
  if (host.empty() || !is_loopback(address)) return true;
  const bool in_brackets = host.front() == '[';
  const auto colon = host.find(':', in_brackets ? host.find(']') : 0);
  host = host.substr(0, colon);
  if (in_brackets && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const auto is = [&](std::string_view own) {
    return beast::iequals({host.data(), host.size()}, {own.data(), own.size()});
  };
  return is("localhost") || is("127.0.0.1") || is("::1") || is(address.host);
}

// Everything but publish(), metrics() and take_profile runs in the thread of the context.
struct MetricsServer::State {
  class Connection;

  std::list<Connection*> connections;  // in order of their begin
  asio::io_context context{1};
  Tcp::acceptor acceptor{context};
  asio::steady_timer pause{context};
  ListenAddress address;
  std::mutex mutex;
  std::shared_ptr<const Metrics> newest = std::make_shared<const Metrics>();
  std::thread thread;
  TakeProfile take_profile;
  std::thread profiler;
  FileDescriptor stop_profile;  // an eventfd; none: no profile is being taken

  std::shared_ptr<const Metrics> metrics() {
    const std::lock_guard lock(mutex);
    return newest;
  }
  error_code listen(const addrinfo& where);
  void accept();
  void make_room();
  // Returns false if a profile is being taken, or there is no descriptor for one.
  bool start_profile(std::chrono::seconds time, std::function<void(Expected<std::string>)> done);
  void end_profile();
};

// Serves one request: a client that waits before its next request would keep a descriptor.
class MetricsServer::State::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(State& state, Tcp::socket socket) : state_(state), stream_(std::move(socket)) {
    state_.connections.push_back(this);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() { state_.connections.remove(this); }

  bool is_reading() const { return is_reading_; }
  // Ends it: what it waits for is cancelled.
  void drop() {
    state_.connections.remove(this);
    stream_.close();
  }

  void serve() {
    parser_.body_limit(kMostRequestBytes);
    stream_.expires_after(kTimeout);  // for all that follows
    http::async_read(stream_, buffer_, parser_,
                     [self = shared_from_this()](const error_code& error, std::size_t /*bytes*/) {
                       self->answer(error);
                     });
  }

 private:
  void answer(const error_code& error) {
    is_reading_ = false;
    if (const auto time = error ? std::nullopt : asked_profile(parser_.get(), state_.address))
      return take_profile(*time);
    auto response =
        error ? answer_to(error) : answer_to(parser_.get(), *state_.metrics(), state_.address);
    if (response) write(std::move(*response));
  }

  // The connection lasts beside the others, as long as the profile takes.
  void take_profile(std::chrono::seconds time) {
    const auto done = [self = shared_from_this()](Expected<std::string> profile) {
      self->write_profile(std::move(profile));
    };
    if (!state_.start_profile(time, done)) {
      Response response;
      set_failed(response, http::status::service_unavailable, "another profile is being taken");
      return write(std::move(response));
    }
    state_.connections.remove(this);
    stream_.expires_never();
    is_profile_ = true;
    stream_.socket().async_wait(Tcp::socket::wait_read,
                                [self = shared_from_this()](const error_code& error) {
                                  if (!error) self->notice_end();
                                });
  }
  // A client that is gone wants no profile.
  void notice_end() {
    error_code ignored;
    if (is_profile_ && stream_.socket().available(ignored) == 0) state_.end_profile();
  }
  void write_profile(Expected<std::string> profile) {
    is_profile_ = false;
    state_.connections.push_back(this);
    stream_.expires_after(kTimeout);
    Response response;
    if (profile) {
      set_content(response, std::move(*profile), "application/octet-stream");
      response.set(http::field::content_disposition, "attachment; filename=\"cow.pb.gz\"");
    } else {
      set_failed(response, http::status::internal_server_error, profile.error().message);
    }
    write(std::move(response));
  }

  void write(Response response) {
    response_ = std::move(response);
    response_.keep_alive(false);
    response_.prepare_payload();
    const auto end = [self = shared_from_this()](const error_code& /*error*/,
                                                 std::size_t /*bytes*/) { self->end(); };
    if (parser_.is_done() && parser_.get().method() == http::verb::head)
      http::async_write_header(stream_, serializer_, end);
    else http::async_write(stream_, serializer_, end);
  }
  void end() {
    error_code ignored;
    stream_.socket().shutdown(Tcp::socket::shutdown_both, ignored);
  }

  State& state_;
  bool is_reading_ = true;
  bool is_profile_ = false;  // is being taken for it
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  http::request_parser<http::string_body> parser_;
  Response response_;
  http::response_serializer<http::string_body> serializer_{response_};
};

void MetricsServer::State::accept() {
  if (!acceptor.is_open()) return;
  acceptor.async_accept([this](const error_code& error, Tcp::socket socket) {
    if (!error) {
      make_room();
      std::make_shared<Connection>(*this, std::move(socket))->serve();
      accept();
    } else if (acceptor.is_open()) {
      // It would fail again at once, for example if there are no descriptors left.
      pause.expires_after(kAfterRefused);
      pause.async_wait([this](const error_code& /*error*/) { accept(); });
    }
  });
}

void MetricsServer::State::make_room() {
  if (connections.size() < kMostConnections) return;
  const auto reading = std::ranges::find_if(connections, &Connection::is_reading);
  (reading != connections.end() ? *reading : connections.front())->drop();
}

bool MetricsServer::State::start_profile(std::chrono::seconds time,
                                         std::function<void(Expected<std::string>)> done) {
  if (stop_profile) return false;
  if (profiler.joinable()) profiler.join();  // it has ended
  stop_profile = FileDescriptor(::eventfd(0, EFD_CLOEXEC));
  if (!stop_profile) return false;
  profiler = std::thread([this, time, done = std::move(done), stop = stop_profile.get(),
                          work = asio::make_work_guard(context)]() mutable {
    auto taken = take_profile(time, stop);
    ::malloc_trim(0);  // samples and their code take megabytes
    // `done` goes with it: the connection that it holds must not end in this thread.
    asio::post(context, [this, done = std::move(done), taken = std::move(taken)]() mutable {
      stop_profile = {};
      done(std::move(taken));
    });
  });
  return true;
}

void MetricsServer::State::end_profile() {
  if (stop_profile) ::eventfd_write(stop_profile.get(), 1);
}

error_code MetricsServer::State::listen(const addrinfo& where) {
  Tcp::endpoint endpoint;
  endpoint.resize(where.ai_addrlen);
  std::memcpy(endpoint.data(), where.ai_addr, where.ai_addrlen);
  endpoint.port(static_cast<unsigned short>(address.port));
  error_code error;
  error_code ignored;
  acceptor.close(ignored);
  acceptor.open(endpoint.protocol(), error);
  // Not SO_REUSEPORT, with which two servers would share a port and its requests.
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error && where.ai_family == AF_INET6) acceptor.set_option(asio::ip::v6_only(false), ignored);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(kMostWaiting, error);
  return error;
}

MetricsServer::MetricsServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
MetricsServer::~MetricsServer() { stop(); }

Expected<std::unique_ptr<MetricsServer>> MetricsServer::open(const ListenAddress& address,
                                                             TakeProfile take_profile) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(address.host.c_str(), nullptr, &hints, &found); error != 0) {
    return make_error(ErrorCode::system_call,
                      fmt::format("--listen {}: {}", text_of(address), ::gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> all(found, &::freeaddrinfo);
  auto state = std::make_unique<State>();
  state->address = address;
  state->take_profile = std::move(take_profile);
  error_code error(EADDRNOTAVAIL, boost::system::system_category());
  for (const addrinfo* each = found; each != nullptr && error; each = each->ai_next)
    error = state->listen(*each);
  if (error) return system_error("--listen " + text_of(address), error.value());
  state->address.port = state->acceptor.local_endpoint().port();
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(state)));
}

const ListenAddress& MetricsServer::address() const { return state_->address; }

void MetricsServer::publish(Metrics metrics) {
  auto newest = std::make_shared<const Metrics>(std::move(metrics));
  const std::lock_guard lock(state_->mutex);
  state_->newest = std::move(newest);
}

void MetricsServer::start() {
  state_->accept();
  state_->thread = std::thread([state = state_.get()] { state->context.run(); });
}

void MetricsServer::stop() {
  if (!state_->thread.joinable()) return;
  // Accepts no more connections, so run() returns after the last one.
  asio::post(state_->context, [state = state_.get()] {
    error_code ignored;
    state->acceptor.close(ignored);
    state->pause.cancel();
    state->end_profile();
  });
  state_->thread.join();
  if (state_->profiler.joinable()) state_->profiler.join();
}

}  // namespace cowshed::cowtop
