#include <bpf/libbpf.h>
#include <cstdarg>
#include <cstdio>
#include <mutex>
#include <sstream>

#include <cowshed/probes/loader/libbpf_log.h>

namespace cowshed {
namespace {

std::mutex callback_mutex;  // held while ours is installed
libbpf_print_fn_t previous_callback = nullptr;
thread_local std::string* collected = nullptr;

int collect(libbpf_print_level level, const char* format, va_list arguments) {
  if (collected == nullptr)
    return previous_callback == nullptr ? 0 : previous_callback(level, format, arguments);
  if (level == LIBBPF_DEBUG) return 0;
  va_list again;
  va_copy(again, arguments);
  const int length = std::vsnprintf(nullptr, 0, format, arguments);
  if (length > 0) {
    std::string line(static_cast<std::size_t>(length) + 1, '\0');
    std::vsnprintf(line.data(), line.size(), format, again);
    line.pop_back();
    *collected += line;
  }
  va_end(again);
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
    if (line.rfind("processed ", 0) == 0 && !before.empty()) return before;
    if (first.empty()) first = line;
  }
  return first;
}

}  // namespace cowshed
