#include <algorithm>
#include <cctype>

#include <cowshed/share/workers/exception.h>
#include <cowshed/share/workers/function.h>

namespace cowshed::internal {

std::string one_line(std::string_view text) {
  constexpr std::size_t kMost = 2048;
  std::string line(text.substr(0, kMost));
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return std::iscntrl(c) != 0; }, ' ');
  return line;
}

std::string text_of(const std::exception& exception) {
  const char* text = exception.what();
  return text != nullptr ? one_line(text)
                         : readable_name(typeid(exception).name()) + ", whose what() is null";
}

std::string text_of_current_exception() {
  try {
    throw;
  } catch (const std::exception& exception) {
    return text_of(exception);
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

}  // namespace cowshed::internal
