// A pre-forking HTTP server as one writes it without Cowshed: it loads the package lists that
// `apt-get update` left into ordinary objects, and forks workers that answer from them.
//
//   GET /package?name=NAME   every field of a package
//   GET /search?word=WORD    the 20 largest packages whose name or description has the word
#include <algorithm>
#include <apt-pkg/fileutl.h>
#include <apt-pkg/tagfile.h>
#include <cctype>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <httplib.h>
#include <map>
#include <memory>
#include <ranges>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>
#include <unordered_map>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_scope.h>
#include <cowshed/share/immortal_ptr.h>

template <class T>
using Ptr = cowshed::ImmortalPtr<T>;

struct Package {
  std::string name;
  long installed_size = 0;  // KiB
  std::map<std::string, std::string> fields;
};

struct Catalogue {
  std::unordered_map<std::string, Ptr<Package>> by_name;
  std::unordered_map<std::string, std::vector<Ptr<Package>>> by_word;
};

void add_words(Catalogue& catalogue, const Ptr<Package>& package, std::string_view text) {
  std::string word;
  const auto end_word = [&] {
    if (word.size() > 2) {
      auto& packages = catalogue.by_word[word];
      if (packages.empty() || packages.back() != package) packages.push_back(package);
    }
    word.clear();
  };
  for (const char each : text) {
    const auto c = static_cast<unsigned char>(each);
    if (std::isalnum(c) != 0) word += static_cast<char>(std::tolower(c));
    else end_word();
  }
  end_word();
}

void add_package(Catalogue& catalogue, const pkgTagSection& section) {
  const Ptr<Package> package(new Package);
  package->name = section.FindS("Package");
  package->installed_size = section.FindI("Installed-Size");
  for (unsigned int i = 0; i < section.Count(); ++i) {
    const char* begin = nullptr;
    const char* end = nullptr;
    section.Get(begin, end, i);
    const std::string field(begin, std::find(begin, end, ':'));
    package->fields[field] = section.FindS(field);
  }
  if (!catalogue.by_name.emplace(package->name, package).second) return;  // in an earlier list
  add_words(catalogue, package, package->name + " " + package->fields["Description"]);
}

Ptr<Catalogue> load(const std::filesystem::path& folder) {
  Ptr<Catalogue> catalogue(new Catalogue);
  for (const auto& list : std::filesystem::directory_iterator(folder)) {
    if (list.path().filename().string().find("_Packages") == std::string::npos) continue;
    FileFd file(list.path().string(), FileFd::ReadOnly, FileFd::Extension);
    pkgTagFile sections(&file);
    for (pkgTagSection section; sections.Step(section);) add_package(*catalogue, section);
  }
  return catalogue;
}

void answer_package(const Catalogue& catalogue, const httplib::Request& request,
                    httplib::Response& response) {
  const auto found = catalogue.by_name.find(request.get_param_value("name"));
  if (found == catalogue.by_name.end()) {
    response.status = 404;
    return;
  }
  const Ptr<Package> package = found->second;
  std::string answer;
  for (const auto& [field, value] : package->fields)
    answer.append(field).append(": ").append(value).append("\n");
  response.set_content(answer, "text/plain");
}

void answer_search(const Catalogue& catalogue, const httplib::Request& request,
                   httplib::Response& response) {
  const auto found = catalogue.by_word.find(request.get_param_value("word"));
  if (found == catalogue.by_word.end()) {
    response.status = 404;
    return;
  }
  std::vector<Ptr<Package>> packages = found->second;
  std::sort(packages.begin(), packages.end(), [](const Ptr<Package>& a, const Ptr<Package>& b) {
    return std::tie(b->installed_size, a->name) < std::tie(a->installed_size, b->name);
  });
  std::string answer = std::to_string(packages.size()) + " packages\n";
  for (const Ptr<Package>& package : packages | std::views::take(20))
    answer += package->name + "\n";
  response.set_content(answer, "text/plain");
}

httplib::Server* running = nullptr;

int serve(httplib::Server& server, const sigset_t& signals) {
  running = &server;
  std::signal(SIGTERM, [](int) { running->stop(); });
  std::signal(SIGINT, [](int) { running->stop(); });
  sigprocmask(SIG_UNBLOCK, &signals, nullptr);
  server.listen_after_bind();
  return EXIT_SUCCESS;
}

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s PORT WORKERS FOLDER (such as 8080 4 /var/lib/apt/lists)\n",
                 argv[0]);
    return EXIT_FAILURE;
  }
  auto arena = cowshed::Arena::create({.name = "catalogue", .capacity = 8UL << 30}).value();
  const auto catalogue = *cowshed::ArenaScope::make(arena, [&] { return load(argv[3]); }).value();
  if (!arena.freeze()) return EXIT_FAILURE;

  httplib::Server server;
  server.Get("/package", [&](const httplib::Request& request, httplib::Response& response) {
    answer_package(*catalogue, request, response);
  });
  server.Get("/search", [&](const httplib::Request& request, httplib::Response& response) {
    answer_search(*catalogue, request, response);
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
  std::printf("%zu packages on port %d\n", catalogue->by_name.size(), port);
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
