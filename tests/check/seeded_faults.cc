// seeded_faults FAULT: does what a sanitizer must find.

#include <climits>
#include <string>
#include <thread>

namespace {

volatile int sink = 0;

void use_after_free() {
  int* const one = new int(1);
  delete one;
  sink = *one;
}

void overflow() {
  volatile int most = INT_MAX;
  sink = most + 1;
}

void leak() {
  const auto* const lost = new std::string(1000, 'x');
  sink = static_cast<int>(lost->size());
}

void data_race() {
  int counter = 0;
  const auto count = [&counter] {
    for (int i = 0; i < 1000; ++i) counter += i;
  };
  std::thread other(count);
  count();
  other.join();
  sink = counter;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string fault = argc == 2 ? argv[1] : "";
  if (fault == "use_after_free") use_after_free();
  if (fault == "overflow") overflow();
  if (fault == "leak") leak();
  if (fault == "data_race") data_race();
  return 0;
}
