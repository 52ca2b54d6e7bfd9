#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/serve/metrics.h>

namespace cowshed::cowtop {

// An address such as "127.0.0.1:9417", "[::1]:0" or "localhost:9417".
struct ListenAddress {
  std::string host;  // without brackets
  int port = 0;      // 0: any free port
};

// Errors: invalid_argument.
Expected<ListenAddress> parse_listen_address(std::string_view text);

// Returns the address as in a URL.
std::string text_of(const ListenAddress& address);

// Whether only this machine can connect to it.
bool is_loopback(const ListenAddress& address);

// Whether a server at `address` answers a request with this Host.  One that only this machine can
// reach is asked by its own names, or by none: a web page that gave its name our address could read
// the answer.
bool may_ask_as(std::string_view host, const ListenAddress& address);

// Returns the seconds of a request for a profile, by the part of its target after '?'; nullopt:
// they are no whole number, or too few or too many.
std::optional<std::chrono::seconds> profile_seconds(std::string_view query);

// Takes a profile for a time, or until a descriptor is readable.
using TakeProfile = std::function<Expected<std::string>(std::chrono::seconds time, int stop_fd)>;

// Serves the latest metrics over HTTP in its own thread, so that a client delays neither the
// measurement nor another client.  A connection serves one request and is closed after 2 s, or
// before if there are too many.  One client at a time gets a profile, which a further thread takes;
// it ends early if the client leaves.
class MetricsServer {
 public:
  // Binds the address.  Errors: system_call.
  static Expected<std::unique_ptr<MetricsServer>> open(const ListenAddress& address,
                                                       TakeProfile take_profile);
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;
  ~MetricsServer();

  const ListenAddress& address() const;  // with the actual port

  // Sets the metrics.  Call it before start(), and after each sample.  Thread-safe.
  void publish(Metrics metrics);

  void start();
  // Ends the threads, after at most the time of one connection and of the end of a profile.
  void stop();

 private:
  struct State;
  explicit MetricsServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cowshed::cowtop
