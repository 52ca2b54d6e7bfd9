#include <boost/asio/ip/tcp.hpp>
#include <semaphore>
#include <sys/eventfd.h>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/measure/measure.h>
#include <cowshed/tools/cowtop/serve/metrics_server.h>
#include <cowshed/tools/cowtop/serve/metrics_sums.h>

// What cowtop does in more than one thread: here, so that ThreadSanitizer sees it.
namespace cowshed::cowtop {
namespace {

// As the live view: is asked for keys also while the probes load in another thread.
class Keys : public Observer {
 public:
  explicit Keys(bool go_on) : go_on_(go_on) {}
  Keys(const Keys&) = delete;
  Keys& operator=(const Keys&) = delete;
  ~Keys() override { ::close(fd_); }

  void sampled(const cow::Backend& backend) override {
    pressed_before_samples = pressed_before_samples || (samples == 0 && pressed > 0);
    processes = backend.measurement().processes.size();
    ++samples;
  }
  int fd() const override { return fd_; }
  bool readable() override {
    eventfd_t keys = 0;
    EXPECT_EQ(::eventfd_read(fd_, &keys), 0);
    ++pressed;
    return go_on_;
  }

  int pressed = 0;
  int samples = 0;
  std::size_t processes = 0;
  bool pressed_before_samples = false;

 private:
  int fd_ = ::eventfd(1, EFD_CLOEXEC);  // one key has been pressed
  bool go_on_;
};

TEST(Threads, KeysAreAnsweredWhileTheProbesLoad) {
  Keys keys(true);
  MeasureOptions options;
  options.command = {"/bin/sh", "-c", "/bin/true; exit 3"};
  const Measured measured = measure(options, &keys);
  ASSERT_TRUE(measured.measurement);
  EXPECT_EQ(measured.exit_status, 3);
  EXPECT_EQ(keys.pressed, 1);
  EXPECT_TRUE(keys.pressed_before_samples);
  EXPECT_GE(keys.processes, 1U);
}

TEST(Threads, WhoEndsTheViewWhileTheProbesLoadGetsAReport) {
  const test::Child child([] { return ::pause(); });
  Keys keys(false);
  MeasureOptions options;
  options.selection = Selection{Selection::By::pid, {child.pid()}, ""};
  const Measured measured = measure(options, &keys);
  ASSERT_TRUE(measured.measurement);
  EXPECT_EQ(measured.exit_status, 0);
  EXPECT_EQ(keys.pressed, 1);
  EXPECT_EQ(keys.samples, 1);
}

Metrics metrics_of(std::uint64_t copied_pages) {
  cow::Measurement measurement = full_measurement();
  measurement.processes.resize(1);
  measurement.processes[0].copied_anon_pages = copied_pages;
  measurement.processes[0].copied_file_pages = 0;
  MetricsSums sums(100);
  sums.add(measurement, {});
  return sums.metrics();
}

// What the server answers, with its head.
std::string get(int port, const std::string& target) {
  boost::asio::ip::tcp::iostream server("127.0.0.1", std::to_string(port));
  server << "GET " << target
         << " HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n"
            "Connection: close\r\n\r\n"
         << std::flush;
  return {std::istreambuf_iterator<char>(server), {}};
}

TEST(Threads, MetricsArePublishedWhileClientsReadThem) {
  constexpr int kClients = 4;
  constexpr int kRequests = 25;
  auto server = MetricsServer::open({"127.0.0.1", 0}, {});
  ASSERT_TRUE(server) << server.error().message;
  (*server)->publish(metrics_of(0));
  (*server)->start();
  std::atomic<int> reading = kClients;
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&, port = (*server)->address().port] {
      for (int request = 0; request < kRequests; ++request) {
        const std::string answer = get(port, "/metrics");
        EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
        EXPECT_THAT(answer, HasSubstr("copied"));
        EXPECT_THAT(answer, EndsWith("# EOF\n"));
      }
      --reading;
    });
  }
  for (std::uint64_t pages = 1; reading > 0; ++pages) (*server)->publish(metrics_of(pages));
  for (std::thread& client : clients) client.join();
  (*server)->stop();
}

// A profile of one second lasts until the test releases it; a longer one until it is stopped.
class ProfileRequest : public ::testing::Test {
 protected:
  ProfileRequest() {
    server_->publish(metrics_of(0));
    server_->start();
  }
  int port() const { return server_->address().port; }
  Expected<std::string> take(std::chrono::seconds time, int stop_fd) {
    begun_.release();
    if (time.count() == 1) released_.acquire();
    else EXPECT_TRUE(internal::is_ready(stop_fd, POLLIN, -1));
    ended_.release();
    return time.count() == 1 ? Expected<std::string>("a profile")
                             : make_error(ErrorCode::system_call, "was stopped");
  }

  std::binary_semaphore begun_{0};
  std::binary_semaphore released_{0};
  std::binary_semaphore ended_{0};
  std::unique_ptr<MetricsServer> server_ =
      MetricsServer::open({"127.0.0.1", 0}, [this](auto time, int stop_fd) {
        return take(time, stop_fd);
      }).value();
};

TEST_F(ProfileRequest, IsAnsweredAfterItsTimeAndHoldsUpNobody) {
  std::string answer;
  std::thread client([&] { answer = get(port(), "/debug/pprof/cow?seconds=1"); });
  begun_.acquire();
  EXPECT_THAT(get(port(), "/metrics"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(get(port(), "/debug/pprof/cow"), StartsWith("HTTP/1.1 503 ")) << "one at a time";
  EXPECT_THAT(get(port(), "/debug/pprof/cow?seconds=0"),
              EndsWith("\r\n\r\n400: seconds is a whole number from 1 to 300\n"));
  // As many as there may be, none of which is in the place of the one that waits.
  std::vector<std::unique_ptr<boost::asio::ip::tcp::iostream>> idle;
  for (int i = 0; i < 70; ++i)
    idle.push_back(
        std::make_unique<boost::asio::ip::tcp::iostream>("127.0.0.1", std::to_string(port())));
  EXPECT_THAT(get(port(), "/metrics"), StartsWith("HTTP/1.1 200 "));
  released_.release();
  client.join();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(answer, EndsWith("\r\n\r\na profile"));
  released_.release();
  EXPECT_THAT(get(port(), "/debug/pprof/cow?seconds=1"), EndsWith("a profile")) << "the next one";
}

TEST_F(ProfileRequest, EndsWithItsClient) {
  {
    boost::asio::ip::tcp::iostream client("127.0.0.1", std::to_string(port()));
    client << "GET /debug/pprof/cow?seconds=300 HTTP/1.1\r\nHost: localhost\r\n\r\n" << std::flush;
    begun_.acquire();
  }
  ended_.acquire();
}

TEST_F(ProfileRequest, EndsWithTheServer) {
  std::string answer;
  std::thread client([&] { answer = get(port(), "/debug/pprof/cow?seconds=300"); });
  begun_.acquire();
  server_->stop();
  client.join();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 500 "));
  EXPECT_THAT(answer, EndsWith("500: was stopped\n"));
}

}  // namespace
}  // namespace cowshed::cowtop
