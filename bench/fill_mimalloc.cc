#include "fill_malloc.h"
#include "late_frees.h"
#include "program.h"

// A rival of `allocators`: a program that is linked with the system's mimalloc, at its defaults.
int main(int argc, char** argv) {
  return cowshed::bench::run_subject_program(
      argc, argv, cowshed::bench::make_fill_work<cowshed::bench::Malloc>);
}
