#pragma once

#include <string>
#include <string_view>

#include <cowshed/base/error.h>

namespace cowshed::cowtop {

// "127.0.0.1:9417", "[::1]:0", "localhost:9417".
struct ListenAddress {
  std::string host;  // without brackets
  int port = 0;      // 0: any that is free
};

// Errors: invalid_argument.
Expected<ListenAddress> parse_listen_address(std::string_view text);

// As in a URL.
std::string text_of(const ListenAddress& address);

// Whether only this machine reaches it.
bool is_loopback(const ListenAddress& address);

}  // namespace cowshed::cowtop
