#pragma once

#include <stdexcept>
#include <unistd.h>

#include <cowshed/share/channel.h>

// What the tests of channels share.
namespace cowshed::test {

template <class T>
Channel<T> make(const ChannelOptions& options = {}) {
  auto channel = Channel<T>::create(options);
  if (!channel) throw std::runtime_error(channel.error().message);
  return *channel;
}

// One that no error has for a success.
template <class T>
ErrorCode code_of(const Expected<T>& result) {
  return result ? ErrorCode{255} : result.error().code;
}

// Whether it holds within some 10 s.
template <class Condition>
bool eventually(Condition&& condition) {
  for (int i = 0; i < 10000; ++i) {
    if (condition()) return true;
    usleep(1000);
  }
  return false;
}

}  // namespace cowshed::test
