#pragma once

// What both versions have in common: how they split texts, answer and fork.
#include <algorithm>
#include <cctype>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <httplib.h>
#include <ranges>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <tuple>
#include <unistd.h>
#include <vector>

void for_each_word(std::string_view text, const auto& callback) {
  std::string word;
  const auto end_word = [&] {
    if (word.size() > 2) callback(word);
    word.clear();
  };
  for (const char each : text) {
    const auto c = static_cast<unsigned char>(each);
    if (std::isalnum(c) != 0) word += static_cast<char>(std::tolower(c));
    else end_word();
  }
  end_word();
}

void answer_package(const auto& catalogue, const httplib::Request& request,
                    httplib::Response& response) {
  const auto found = catalogue.by_name.find(request.get_param_value("name"));
  if (found == catalogue.by_name.end()) {
    response.status = 404;
    return;
  }
  const auto package = found->second;
  std::string answer;
  for (const auto& [field, value] : package->fields)
    answer.append(field).append(": ").append(value).append("\n");
  response.set_content(answer, "text/plain");
}

void answer_search(const auto& catalogue, const httplib::Request& request,
                   httplib::Response& response) {
  const auto found = catalogue.by_word.find(request.get_param_value("word"));
  if (found == catalogue.by_word.end()) {
    response.status = 404;
    return;
  }
  auto packages = found->second;
  std::sort(packages.begin(), packages.end(), [](const auto& a, const auto& b) {
    return std::tie(b->installed_size, a->name) < std::tie(a->installed_size, b->name);
  });
  std::string answer = std::to_string(packages.size()) + " packages\n";
  for (const auto& package : packages | std::views::take(20)) answer += package->name + "\n";
  response.set_content(answer, "text/plain");
}

inline httplib::Server* running = nullptr;

inline int serve(httplib::Server& server, const sigset_t& signals) {
  running = &server;
  std::signal(SIGTERM, [](int) { running->stop(); });
  std::signal(SIGINT, [](int) { running->stop(); });
  sigprocmask(SIG_UNBLOCK, &signals, nullptr);
  server.listen_after_bind();
  // The first worker that stops shuts down the socket of all, so that this one's signal may come
  // when its server is gone.
  std::signal(SIGTERM, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
  return EXIT_SUCCESS;
}

// Arguments: PORT WORKERS.  Returns the exit status, after SIGTERM or SIGINT.
int fork_workers(const auto& catalogue, char** argv) {
  httplib::Server server;
  server.Get("/package", [&](const httplib::Request& request, httplib::Response& response) {
    answer_package(catalogue, request, response);
  });
  server.Get("/search", [&](const httplib::Request& request, httplib::Response& response) {
    answer_search(catalogue, request, response);
  });
  server.set_tcp_nodelay(true);
  int port = std::atoi(argv[1]);
  if (port == 0) port = server.bind_to_any_port("127.0.0.1");
  else if (!server.bind_to_port("127.0.0.1", port)) port = -1;
  if (port < 0) {
    std::fprintf(stderr, "%s: port %s cannot be bound\n", argv[0], argv[1]);
    return EXIT_FAILURE;
  }

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::vector<pid_t> workers;
  for (int i = 0; i < std::atoi(argv[2]); ++i) {
    std::fflush(nullptr);
    const auto start = std::chrono::steady_clock::now();
    const pid_t pid = fork();
    if (pid == 0) return serve(server, signals);
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    std::printf("worker %d: forked in %.0f us\n", pid, took.count());
    workers.push_back(pid);
  }
  std::printf("%zu packages on port %d\n", catalogue.by_name.size(), port);
  std::fflush(nullptr);

  int signal = 0;
  sigwait(&signals, &signal);
  int result = EXIT_SUCCESS;
  for (const pid_t pid : workers) kill(pid, SIGTERM);
  for (const pid_t pid : workers) {
    int status = 0;
    waitpid(pid, &status, 0);
    if (status != 0) {
      std::fprintf(stderr, "%s: worker %d ended with status %d\n", argv[0], pid, status);
      result = EXIT_FAILURE;
    }
  }
  return result;
}
