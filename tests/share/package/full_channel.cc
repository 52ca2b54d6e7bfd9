#include <cowshed/share/channel.h>

// A compiler other than the library's may pass its values in another way.
int main() {
  auto channel = cowshed::Channel<int>::create({.slots = 1024}).value();
  int sent = 0;
  while (channel.try_send(sent)) ++sent;
  return sent == 1024 && channel.try_send(0).error().code == cowshed::ErrorCode::would_block ? 0
                                                                                             : 1;
}
