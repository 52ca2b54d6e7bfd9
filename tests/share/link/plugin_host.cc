#include <array>
#include <cstdio>
#include <dlfcn.h>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

// plugin_host PLUGIN...: a program that knows nothing of Cowshed uses the plugins, each a copy of
// it, in turn, at once, and after it has closed them.

namespace {

struct Plugin {
  std::string file;
  void* library;
  const char* (*use)(const char*);
};

void check(const Plugin& plugin, const char* name) {
  if (const char* failure = plugin.use(name)) {
    std::printf("%s: %s\n", plugin.file.c_str(), failure);
    _exit(1);
  }
}

void* open_or_exit(const char* file) {
  void* const library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::printf("%s\n", dlerror());
    _exit(1);
  }
  return library;
}

template <class Body>
void check_child(const char* whose, const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(0);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) {
    std::printf("%s: the child's status is %d\n", whose, status);
    _exit(1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IONBF, 0);
  std::vector<Plugin> plugins;
  for (int i = 1; i < argc; ++i) {
    void* const library = open_or_exit(argv[i]);
    plugins.push_back(
        {argv[i], library,
         reinterpret_cast<const char* (*)(const char*)>(dlsym(library, "use_plugin"))});
  }
  for (const Plugin& plugin : plugins) check(plugin, "main");
  std::vector<std::thread> threads;
  for (const Plugin& plugin : plugins) {
    for (const char* name : {"one", "two"}) {
      threads.emplace_back([&plugin, name] {
        check(plugin, name);
        // A fork in a thread that has not used the other plugins.
        check_child(plugin.file.c_str(), [&] { check(plugin, "child"); });
      });
    }
  }
  // Closed while threads have their data, which they give back when they end.
  std::thread user([&] {
    check(plugins.front(), "user");
    for (const Plugin& plugin : plugins) dlclose(plugin.library);
  });
  for (std::thread& thread : threads) thread.join();
  user.join();
  check_child("after dlclose()", [] {});
  std::puts("all work");
}
