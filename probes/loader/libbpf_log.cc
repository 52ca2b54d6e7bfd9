#include <bpf/libbpf.h>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <sstream>

#include <cowshed/probes/loader/libbpf_log.h>

namespace cowshed {
namespace {

std::mutex callback_mutex;  // held while our callback is installed
libbpf_print_fn_t previous_callback = nullptr;
thread_local std::string* collected = nullptr;

int collect(libbpf_print_level level, const char* format, va_list arguments) {
  if (collected == nullptr)
    return previous_callback == nullptr ? 0 : previous_callback(level, format, arguments);
  if (level == LIBBPF_DEBUG) return 0;
  char* line = nullptr;
  if (::vasprintf(&line, format, arguments) < 0) return 0;
  *collected += line;
  std::free(line);
  return 0;
}

}  // namespace

LibbpfLog::LibbpfLog() {
  callback_mutex.lock();
  previous_callback = libbpf_set_print(collect);
  collected = &text_;
}

LibbpfLog::~LibbpfLog() {
  collected = nullptr;
  libbpf_set_print(previous_callback);
  callback_mutex.unlock();
}

std::string LibbpfLog::reason() const {
  std::istringstream lines(text_);
  std::string first;
  std::string before;
  for (std::string line; std::getline(lines, line); before = line) {
    // Since Linux 7.3 that has a heading, and other lines follow.
    if (line == "Reason:" && std::getline(lines >> std::ws, line)) return line;
    if (line.rfind("processed ", 0) == 0 && !before.empty()) return before;
    if (first.empty()) first = line;
  }
  return first;
}

}  // namespace cowshed
