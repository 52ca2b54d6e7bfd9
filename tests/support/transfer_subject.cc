// A program that sends, and stays for LINGER_MS: `transfer_subject LINGER_MS`.  It sends 5 ints
// through the channel "numbers"; a worker that it forks then sends 2 through the same.

#include <chrono>
#include <cstdlib>
#include <thread>

#include <cowshed/share/channel.h>
#include <cowshed/share/workers.h>

int main(int argc, char** argv) {
  if (argc != 2) return EXIT_FAILURE;
  const std::chrono::milliseconds linger(std::strtol(argv[1], nullptr, 10));
  auto numbers = cowshed::Channel<int>::create({.name = "numbers"});
  if (!numbers) return EXIT_FAILURE;
  const auto send = [&](int count) {
    for (int i = 0; i < count; ++i) {
      if (!numbers->send(i)) return false;
    }
    return true;
  };
  if (!send(5)) return EXIT_FAILURE;
  auto worker = cowshed::start({}, [&] {
    if (!send(2)) return EXIT_FAILURE;
    std::this_thread::sleep_for(linger);
    return EXIT_SUCCESS;
  });
  if (!worker) return EXIT_FAILURE;
  const auto exits = worker->wait();
  return exits && exits->front().ok() ? EXIT_SUCCESS : EXIT_FAILURE;
}
