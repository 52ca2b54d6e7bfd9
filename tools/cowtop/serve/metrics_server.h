#pragma once

#include <memory>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/serve/listen_address.h>
#include <cowshed/tools/cowtop/serve/metrics.h>

namespace cowshed::cowtop {

// Serves the newest metrics over HTTP, by threads of its own: no client holds up who measures.  Of
// too many clients, or slow ones, those that come later wait, and a request that takes some seconds
// is dropped.
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
  // False: a client still keeps a thread, so that this must not be destroyed.
  bool stop();

 private:
  struct State;
  explicit MetricsServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cowshed::cowtop
