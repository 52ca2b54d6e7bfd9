#define COWSHED_OTHER
#include "other_program.h"

#include <cowshed/share/runtime.h>
#include <cowshed/share/worker_function.h>

namespace cowshed::other {

long scale(long number) { return number * 10; }
Sized grow(Sized sized) { return sized; }

}  // namespace cowshed::other

COWSHED_WORKER(cowshed::other::scale);
COWSHED_WORKER(cowshed::other::grow);

int main(int argc, char** argv) {
  const cowshed::Runtime runtime(argc, argv);
  return 1;
}
