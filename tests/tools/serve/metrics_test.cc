#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/serve/metrics_server.h>
#include <cowshed/tools/cowtop/serve/metrics_sums.h>
#include <cowshed/tools/cowtop/serve/metrics_text.h>

namespace cowshed::cowtop {
namespace {

using ::testing::ContainsRegex;

std::size_t figure_of_metric(std::string_view metric) {
  const auto found = std::ranges::find(cow::kFigures, metric, &cow::Figure::metric);
  return static_cast<std::size_t>(found - cow::kFigures.begin());
}

cow::ProcessCopies process(pid_t pid, const std::string& comm, std::uint64_t copied) {
  cow::ProcessCopies result = copier(pid, comm, copied);
  result.start_ns = static_cast<std::uint64_t>(pid);
  result.alive = true;
  return result;
}

class MetricsSumsTest : public ::testing::Test {
 protected:
  void add(const std::vector<cow::ProcessCopies>& processes,
           const std::vector<cow::ProcessCopies>& ended = {}) {
    sums_.add(measurement_with(processes), ended);
  }
  // "comm cgroup pages processes", of each.
  std::vector<std::string> commands() const {
    std::vector<std::string> result;
    for (const CommandMetrics& each : sums_.metrics().commands) {
      result.push_back(each.comm + " " + each.place.cgroup + " " +
                       (each.copied_pages ? std::to_string(*each.copied_pages) : "-") + " " +
                       std::to_string(each.running.processes));
    }
    return result;
  }

  std::map<pid_t, std::string> cgroups_;
  MetricsSums sums_{2, [this](pid_t pid) { return cgroups_[pid]; }};
};

TEST_F(MetricsSumsTest, KeepWhatEndedProcessesDid) {
  cgroups_ = {{1, "/a"}, {2, "/a"}, {3, "/b"}};
  add({process(1, "x", 10), process(2, "x", 5), process(3, "x", 1)});
  EXPECT_THAT(commands(), ElementsAre("x /a 15 2", "x /b 1 1"));
  cow::ProcessCopies ended = process(2, "x", 7);
  ended.alive = false;
  add({process(1, "x", 11), process(3, "x", 1)}, {ended});
  EXPECT_THAT(commands(), ElementsAre("x /a 18 1", "x /b 1 1"));
  add({});
  EXPECT_THAT(commands(), ElementsAre("x /a 18 0", "x /b 1 0"));
  cow::ProcessCopies again = process(1, "x", 3);  // another process with the PID
  again.start_ns = 99;
  add({again});
  EXPECT_THAT(commands(), ElementsAre("x /a 21 1", "x /b 1 0"));
}

TEST_F(MetricsSumsTest, OfAProcessThatChangesItsNameStayWhereTheyWere) {
  cgroups_ = {{1, "/a"}};
  add({process(1, "sh", 10)});
  add({process(1, "server", 15)});
  EXPECT_THAT(commands(), ElementsAre("server /a 5 1", "sh /a 10 0"));
}

TEST_F(MetricsSumsTest, NeverFall) {
  add({process(1, "x", 10)});
  add({process(1, "x", 7)});
  add({process(1, "x", 12)});
  EXPECT_THAT(commands(), ElementsAre("x  12 1"));
}

TEST_F(MetricsSumsTest, OfTooManyAreOther) {
  add({process(1, "a", 1), process(2, "b", 2), process(3, "c", 4), process(4, "d", 8)});
  EXPECT_THAT(commands(), ElementsAre("a  1 1", "b  2 1", "other other 12 2"));
  add({process(3, "c", 5), process(5, "e", 1)});
  EXPECT_THAT(commands(), ElementsAre("a  1 0", "b  2 0", "other other 14 2"))
      << "a and b have been used just now";
}

TEST_F(MetricsSumsTest, WhoWasGoneBeforeWeLookedHasItsParentsCgroup) {
  cgroups_ = {{1, "/a"}};
  cow::ProcessCopies child = process(2, "y", 5);
  child.ppid = 1;
  child.alive = false;
  add({process(1, "x", 0)}, {child});
  EXPECT_THAT(commands(), ElementsAre("x /a 0 1", "y /a 5 0"));
}

TEST_F(MetricsSumsTest, WhatIsNotKnownIsNotZero) {
  cow::ProcessCopies root = process(1, "x", 0);
  root.copied_anon_pages.reset();
  add({root});
  EXPECT_THAT(commands(), ElementsAre("x  - 1"));
  const std::string text = metrics_text(sums_.metrics(), MetricsFormat::prometheus);
  EXPECT_THAT(text, Not(HasSubstr("copied_anon\"")));
  EXPECT_THAT(text, HasSubstr("copied_file\""));
  EXPECT_THAT(text, Not(HasSubstr("cowshed_copied_bytes_total{")));
}

TEST_F(MetricsSumsTest, NameTheContainerAndThePod) {
  const std::string id = "0123456789ab" + std::string(52, 'c');
  const std::string uid = "01234567-89ab-cdef-0123-456789abcdef";
  cgroups_ = {{1, "/kubepods/pod" + uid + "/" + id}, {2, "/docker/" + id + "/docker/" + id}};
  add({process(1, "x", 0), process(2, "y", 0)});
  const auto commands = sums_.metrics().commands;
  ASSERT_THAT(commands, SizeIs(2));
  EXPECT_EQ(commands[0].place.cgroup, "/kubepods/pod" + uid + "/0123456789ab");
  EXPECT_EQ(commands[0].place.pod, uid);
  EXPECT_EQ(commands[0].place.container, "0123456789ab");
  EXPECT_EQ(commands[1].place.cgroup, "/docker/0123456789ab/docker/0123456789ab");
  EXPECT_EQ(commands[1].place.container, "0123456789ab");
}

TEST_F(MetricsSumsTest, OfMemoryAreOfRunningProcessesOfWhichItIsKnown) {
  const auto with_memory = [](pid_t pid, std::uint64_t pss) {
    cow::ProcessCopies worker = process(pid, "x", 10);
    worker.shared_at_fork_bytes = 100 * cow::kPageSize;
    worker.pss = {pss, 4096, 1};
    return worker;
  };
  cow::ProcessCopies unknown = process(3, "x", 200);  // more than it shared
  unknown.shared_at_fork_bytes = 100 * cow::kPageSize;
  add({with_memory(1, 1000), with_memory(2, 500), unknown});
  RunningMetrics sum = sums_.metrics().commands.at(0).running;
  EXPECT_EQ(sum.figures.at(figure_of_metric("cowshed_pss_bytes")), 1500U);
  EXPECT_EQ(sum.figures.at(figure_of_metric("cowshed_page_table_bytes")), 8192U);
  EXPECT_EQ(sum.pss_processes, 2U);
  EXPECT_EQ(sum.processes, 3U);
  EXPECT_EQ(sum.figures.at(figure_of_metric("cowshed_shared_at_fork_bytes")), 200 * cow::kPageSize);
  EXPECT_EQ(sum.figures.at(figure_of_metric("cowshed_still_shared_bytes")), 180 * cow::kPageSize);
  cow::ProcessCopies ended = with_memory(2, 500);
  ended.alive = unknown.alive = false;
  add({with_memory(1, 1000)}, {ended, unknown});
  sum = sums_.metrics().commands.at(0).running;
  EXPECT_EQ(sum.figures.at(figure_of_metric("cowshed_pss_bytes")), 1000U);
  EXPECT_EQ(sum.figures.at(figure_of_metric("cowshed_shared_at_fork_bytes")), 100 * cow::kPageSize);
}

TEST_F(MetricsSumsTest, OfForksAreAHistogram) {
  cow::ProcessCopies parent = process(1, "x", 10);
  parent.fork_costs = {.durations = {{60'000, 2}, {2'000'000, 1}}, .total_ns = 2'120'000};
  add({parent});
  parent.fork_costs = {
      .durations = {{60'000, 2}, {2'000'000, 2}}, .total_ns = 4'120'000, .failures = {{ENOMEM, 3}}};
  add({}, {parent});
  const std::string text = metrics_text(sums_.metrics(), MetricsFormat::openmetrics);
  EXPECT_THAT(text, HasSubstr("# TYPE cowshed_fork_seconds histogram\n"));
  EXPECT_THAT(text, HasSubstr("\ncowshed_fork_seconds_bucket{comm=\"x\",le=\"6.5536e-05\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("\ncowshed_fork_seconds_bucket{comm=\"x\",le=\"0.001048576\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("\ncowshed_fork_seconds_bucket{comm=\"x\",le=\"0.004194304\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("\ncowshed_fork_seconds_bucket{comm=\"x\",le=\"+Inf\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("\ncowshed_fork_seconds_count{comm=\"x\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("\ncowshed_fork_seconds_sum{comm=\"x\"} 0.00412\n"));
  EXPECT_THAT(text, HasSubstr("\ncowshed_failed_forks_total{comm=\"x\",error=\"ENOMEM\"} 3\n"));
}

TEST_F(MetricsSumsTest, AKillForWantOfMemoryCountsOnce) {
  cow::ProcessCopies killed = process(1, "x", 10);
  add({killed, process(2, "x", 10)});
  killed.alive = false;
  killed.out_of_memory = {.is_sure = true};
  add({killed});
  add({}, {killed});
  const std::string text = metrics_text(sums_.metrics(), MetricsFormat::openmetrics);
  EXPECT_THAT(text, HasSubstr("\ncowshed_oom_kills_total{comm=\"x\"} 1\n"));
}

TEST_F(MetricsSumsTest, OfObjects) {
  cow::ProcessCopies reader = process(1, "x", 10);
  reader.objects = {{{"index", "Index", "words", 3}, {"unused", "Index", "words", 0}}};
  add({reader});
  reader.objects = {{{"index", "Index", "words", 2}}};
  add({reader});
  reader.objects = {{{"index", "Index", "words", 5}}};
  add({}, {reader});
  const Metrics metrics = sums_.metrics();
  ASSERT_THAT(metrics.objects, SizeIs(1));
  EXPECT_EQ(metrics.objects[0].object, "index");
  EXPECT_EQ(metrics.objects[0].arena, "words");
  EXPECT_EQ(metrics.objects[0].copied_pages, 5U);
}

TEST_F(MetricsSumsTest, OfEverNewObjectsDoNotGrow) {
  cow::ProcessCopies publisher = process(1, "x", 10);
  for (std::uint64_t round = 0; round < 3000; ++round) {
    publisher.objects = {{"o" + std::to_string(round), "T", "a", round + 1}};
    add({publisher});
  }
  const auto objects = sums_.metrics().objects;
  ASSERT_EQ(objects.size(), 3U);  // two, as many as there may be, and the sum of the others
  std::uint64_t pages = 0;
  for (const ObjectMetrics& each : objects) pages += each.copied_pages;
  EXPECT_EQ(pages, std::uint64_t{1024} * 1025 / 2 + 3000);  // of one more only what it grew
}

TEST_F(MetricsSumsTest, OfObjectsWithoutAName) {
  cow::ProcessCopies reader = process(1, "x", 100);
  reader.objects = {{{"", "Index", "words", 30}, {"", "Node", "words", 50}}};
  add({reader});
  EXPECT_EQ(sums_.metrics().objects.at(0).copied_pages, 80U);
  (*reader.objects)[0].copied_pages = 40;
  add({reader});
  ASSERT_THAT(sums_.metrics().objects, SizeIs(1));
  EXPECT_EQ(sums_.metrics().objects[0].copied_pages, 90U);
}

TEST(MetricsText, HasBothFormats) {
  Metrics metrics;
  metrics.backend = "pagemap";
  CommandMetrics& command = metrics.commands.emplace_back();
  command.comm = "a \"b\" \\ \n";
  command.place = {"/c", "", "pod"};
  command.copied_pages = 2;
  command.pages = {1, 1};
  command.running.figures.at(figure_of_metric("cowshed_new_bytes")) = 8192;
  command.running.figures.at(figure_of_metric("cowshed_pss_bytes")) = 12'288;
  metrics.not_seen = 7;
  const std::string open = metrics_text(metrics, MetricsFormat::openmetrics);
  EXPECT_THAT(open, HasSubstr("# TYPE cowshed_copied_bytes counter\n"
                              "# UNIT cowshed_copied_bytes bytes\n# HELP cowshed_copied_bytes "));
  EXPECT_THAT(open, HasSubstr("\ncowshed_copied_bytes_total{comm=\"a \\\"b\\\" \\\\ "
                              "\\n\",cgroup=\"/c\",pod=\"pod\"} 8192\n"));
  EXPECT_THAT(open, HasSubstr("# TYPE cowshed_backend info\n"));
  EXPECT_THAT(open, HasSubstr("\ncowshed_unseen_processes_total 7\n"));
  EXPECT_THAT(open, Not(HasSubstr("lost_events")));
  EXPECT_THAT(open, Not(HasSubstr("cowshed_private_bytes{")));
  EXPECT_THAT(open, HasSubstr("cowshed_new_bytes{"));
  EXPECT_THAT(open, ContainsRegex("\ncowshed_pss_bytes\\{[^}]*\\} 12288\n"));
  EXPECT_THAT(open, Not(HasSubstr("cowshed_still_shared_bytes{"))) << "not known";
  EXPECT_THAT(open, EndsWith("\n# EOF\n"));
  const std::string plain = metrics_text(metrics, MetricsFormat::prometheus);
  EXPECT_THAT(plain, HasSubstr("# TYPE cowshed_copied_bytes_total counter\n# HELP "));
  EXPECT_THAT(plain, HasSubstr("# TYPE cowshed_backend_info gauge\n"));
  EXPECT_THAT(plain, Not(HasSubstr("# UNIT")));
  EXPECT_THAT(plain, Not(HasSubstr("# EOF")));
}

TEST(MetricsText, IsTheFormatThatIsAskedFor) {
  const auto is_open = [](const char* accept) {
    return wanted_format(accept) == MetricsFormat::openmetrics;
  };
  EXPECT_TRUE(
      is_open("application/openmetrics-text;version=1.0.0,"
              "application/openmetrics-text;version=0.0.1;q=0.75,"
              "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"));
  EXPECT_TRUE(is_open("application/openmetrics-text"));
  EXPECT_TRUE(is_open("text/plain;q=0.5 , application/openmetrics-text ; q=0.9"));
  EXPECT_FALSE(is_open("text/plain, application/openmetrics-text;q=0.5"));
  EXPECT_FALSE(is_open("application/openmetrics-text;q=0"));
  for (const char* other : {"", "*/*", "text/html", ",;,;q=", ";;;"}) EXPECT_FALSE(is_open(other));
}

TEST(ListenAddress, OnLoopbackOnlyItsOwnNamesMayBeAsked) {
  const ListenAddress own{"127.0.0.2", 9417};
  for (const char* right : {"", "localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:9417", "[::1]",
                            "[::1]:9417", "127.0.0.2:9417"}) {
    EXPECT_TRUE(may_ask_as(right, own)) << right;
  }
  for (const char* wrong : {"evil.example", "evil.example:9417", "127.0.0.1.evil.example",
                            "localhost.evil", "[", "[]", "[::1", "[::1]x", ":9417", "192.0.2.1"}) {
    EXPECT_FALSE(may_ask_as(wrong, own)) << wrong;
    EXPECT_TRUE(may_ask_as(wrong, {"0.0.0.0", 9417})) << wrong;
  }
}

TEST(ProfileSeconds, AreOfTheQuery) {
  const auto seconds = [](const char* query) {
    const auto time = profile_seconds(query);
    return time ? time->count() : 0;
  };
  EXPECT_EQ(seconds(""), 30);
  EXPECT_EQ(seconds("seconds=1"), 1);
  EXPECT_EQ(seconds("debug=0&seconds=300&x"), 300);
  for (const char* wrong : {"seconds=", "seconds=0", "seconds=-1", "seconds=301", "seconds=1.5",
                            "seconds=1s", "seconds= 1", "seconds=99999999999", "x&seconds=a"}) {
    EXPECT_EQ(seconds(wrong), 0) << wrong;
  }
}

TEST(ListenAddress, IsParsed) {
  const auto parsed = [](const char* text) {
    const auto address = parse_listen_address(text);
    return address ? text_of(*address) : "";
  };
  for (const char* right : {"127.0.0.1:9417", "[::1]:0", "localhost:65535", "[fe80::1%eth0]:80"})
    EXPECT_EQ(parsed(right), right);
  for (const char* wrong :
       {"", ":", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "a:-1", "a:1x", "::1:80",
        "[]:80", "[::1]", "/tmp/socket:1", "a b:1", "a\n:1"}) {
    EXPECT_EQ(parsed(wrong), "") << wrong;
  }
  EXPECT_TRUE(is_loopback(*parse_listen_address("[::1]:0")));
  EXPECT_FALSE(is_loopback(*parse_listen_address("0.0.0.0:0")));
}

}  // namespace
}  // namespace cowshed::cowtop
