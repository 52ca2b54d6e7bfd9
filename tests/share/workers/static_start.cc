#include <cowshed/share/workers.h>

// Starts a worker before main(), where nothing has made the streams ready: no <iostream> here.
namespace {

long twice(long number) { return 2 * number; }

struct AtStart {
  long answer = cowshed::start<twice>({}, 4L).value().wait().value()[0].value.value_or(-1);
};
const AtStart at_start;

}  // namespace

int main() { return at_start.answer == 8 ? 0 : 1; }
