#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

int read_it(const int& value) { return value; }

int main() {
  auto arena = cowshed::Arena::create({.name = "number", .capacity = 4 << 20});
  auto number = arena->make<int>(7);
  auto ref = cowshed::publish("number", *number);
  if (!ref || !arena->freeze()) {
    return 1;
  }
  auto workers = cowshed::start({.count = 1}, read_it, *ref);
  return workers && workers->wait().value()[0].exit_code == 7 ? 0 : 2;
}
