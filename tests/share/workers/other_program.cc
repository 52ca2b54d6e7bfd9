#define COWSHED_OTHER
#include "other_program.h"

#include <cowshed/share/workers.h>
#include <cowshed/share/workers/function.h>

namespace cowshed::other {

long scale(long number) { return number * 10; }
Sized grow(Sized sized) { return sized; }

}  // namespace cowshed::other

#define COWSHED_TWO_ON_ONE_LINE          \
  COWSHED_WORKER(cowshed::other::scale); \
  COWSHED_WORKER(cowshed::other::grow)
COWSHED_TWO_ON_ONE_LINE;

int main(int argc, char** argv) {
  const cowshed::Runtime runtime(argc, argv);
  return 1;
}
