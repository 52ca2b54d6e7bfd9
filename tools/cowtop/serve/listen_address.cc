#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <string>

#include <cowshed/tools/cowtop/serve/listen_address.h>

namespace cowshed::cowtop {
namespace {

bool is_port(int number) { return number >= 0 && number <= 65535; }

// Of a name, an IPv4 or, in brackets, an IPv6 address.
bool is_host(std::string_view text, bool in_brackets) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char each) {
    const bool is_word = (each >= '0' && each <= '9') || (each >= 'a' && each <= 'z') ||
                         (each >= 'A' && each <= 'Z') || each == '.';
    return is_word || (in_brackets ? each == ':' || each == '%' : each == '-' || each == '_');
  });
}

}  // namespace

Expected<ListenAddress> parse_listen_address(std::string_view text) {
  const auto wrong = [&] {
    return make_error(
        ErrorCode::invalid_argument,
        fmt::format("--listen: '{}' is not HOST:PORT, as 127.0.0.1:9417 or [::1]:9417", text));
  };
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return wrong();
  const std::string_view digits = text.substr(colon + 1);
  std::string_view host = text.substr(0, colon);
  const bool in_brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (in_brackets) host = host.substr(1, host.size() - 2);
  ListenAddress address{std::string(host), -1};
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), address.port);
  const bool is_whole = parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
  if (!is_whole || !is_port(address.port) || !is_host(host, in_brackets)) return wrong();
  return address;
}

std::string text_of(const ListenAddress& address) {
  const bool is_v6 = address.host.find(':') != std::string::npos;
  return (is_v6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

bool is_loopback(const ListenAddress& address) {
  return address.host == "localhost" || address.host == "::1" || address.host.starts_with("127.");
}

}  // namespace cowshed::cowtop
