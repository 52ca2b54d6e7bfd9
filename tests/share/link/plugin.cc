#include <string>
#include <thread>

#include "plugin_use.h"

// A plugin with a copy of cowshed::share of its own.

// Null, or what fails.  Thread-safe where `name` differs.
extern "C" const char* use_plugin(const char* name) {
  thread_local std::string failure;
  failure = use_cowshed(name);
  std::string of_thread;
  std::thread([&] { of_thread = use_cowshed(std::string(name) + "-thread"); }).join();
  failure += of_thread;
  return failure.empty() ? nullptr : failure.c_str();
}
