// A program that sends by each means, to nobody, and prints its transfer_report() as JSON.

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include <cowshed/share/channel.h>
#include <cowshed/share/transfer_report.h>

int main() {
  auto numbers = cowshed::Channel<int>::create({.name = "numbers"});
  auto bytes = cowshed::Channel<cowshed::Bytes>::create({.name = "bytes"});
  auto names = cowshed::Channel<std::vector<std::string>>::create({.name = "names"});
  if (!numbers || !bytes || !names) return EXIT_FAILURE;
  auto buffer = bytes->buffer(10'000'000);
  if (!buffer || !numbers->send(1) || !bytes->send(std::move(*buffer)) ||
      !names->send({"one", "another"})) {
    return EXIT_FAILURE;
  }
  return std::fputs(cowshed::to_json(cowshed::transfer_report()).c_str(), stdout) < 0
             ? EXIT_FAILURE
             : EXIT_SUCCESS;
}
