#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cxxabi.h>
#include <memory>
#include <typeinfo>

#include <cowshed/base/exception_text.h>

namespace cowshed::internal {

std::string without_controls(std::string text) {
  std::ranges::replace_if(text, [](unsigned char c) { return std::iscntrl(c) != 0; }, ' ');
  return text;
}

std::string one_line(std::string_view text) {
  constexpr std::size_t kMost = 2048;
  return without_controls(std::string(text.substr(0, kMost)));
}

std::string demangled(const char* name) {
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, nullptr), &std::free);
  return text != nullptr ? text.get() : name;
}

std::string text_of(const std::exception& exception) {
  const char* text = exception.what();
  return text != nullptr ? one_line(text)
                         : demangled(typeid(exception).name()) + ", whose what() is null";
}

std::string text_of_current_exception() {
  try {
    throw;
  } catch (const std::exception& exception) {
    return text_of(exception);
  } catch (const ForcedUnwind&) {
    throw;
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

}  // namespace cowshed::internal
