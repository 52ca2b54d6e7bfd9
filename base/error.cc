#include <array>
#include <cstddef>
#include <cstring>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/base/exception_text.h>

#ifdef _GLIBCXX_DEBUG
const char cowshed_must_be_built_with_GLIBCXX_DEBUG_too = 1;
#endif

namespace cowshed {

namespace {

// As the compiler spells it in "... [code = cowshed::ErrorCode::closed]".
template <ErrorCode code>
constexpr std::string_view name_of() {
  constexpr std::string_view kText = __PRETTY_FUNCTION__;
  constexpr std::string_view kStart = "code = cowshed::ErrorCode::";
  constexpr std::size_t kBegin = kText.find(kStart) + kStart.size();
  return kText.substr(kBegin, kText.find_first_of(";]", kBegin) - kBegin);
}

}  // namespace

std::string_view to_string(ErrorCode code) {
  constexpr auto kLast = static_cast<std::size_t>(ErrorCode::unsupported);
  const auto index = static_cast<std::size_t>(code);
  return [&]<std::size_t... i>(std::index_sequence<i...>) -> std::string_view {
    constexpr std::array kNames = {name_of<static_cast<ErrorCode>(i)>()...};
    return index <= kLast ? kNames[index] : "unknown";
  }(std::make_index_sequence<kLast + 1>());
}

tl::unexpected<Error> system_error(std::string_view what, int error) {
  char buffer[128];
  const char* text = strerror_r(error, buffer, sizeof buffer);
  return make_error(ErrorCode::system_call, std::string(what) + ": " + text, error);
}

tl::unexpected<Error> make_error(ErrorCode code, std::string message, int system_errno) {
  // Names and paths in it may have line feeds.
  return tl::make_unexpected(
      Error{code, system_errno, internal::without_controls(std::move(message))});
}

}  // namespace cowshed
