#pragma once

#include <memory>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/serve/metrics.h>

namespace cowshed::cowtop {

// "127.0.0.1:9417", "[::1]:0", "localhost:9417".
struct ListenAddress {
  std::string host;  // without brackets
  int port = 0;      // 0: any that is free
};

// Errors: invalid_argument.
Expected<ListenAddress> parse_listen_address(std::string_view text);

// As in a URL.
std::string text_of(const ListenAddress& address);

// Whether only this machine reaches it.
bool is_loopback(const ListenAddress& address);

// Serves the newest metrics over HTTP, by a thread of its own: no client holds up who measures, nor
// another client.  Of too many those that come later wait; a connection is for one request, and is
// closed after 2 s even where the client still sends it, or has not read the answer.
class MetricsServer {
 public:
  // Binds.  Errors: system_call, with a line that says what is wrong with the address.
  static Expected<std::unique_ptr<MetricsServer>> open(const ListenAddress& address);
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;
  ~MetricsServer();

  const ListenAddress& address() const;  // with the port that was taken

  // To be called before start(), and again whenever there is something new.
  void publish(Metrics metrics);

  void start();
  // Takes as long as a client's connection at most.
  void stop();

 private:
  struct State;
  explicit MetricsServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cowshed::cowtop
