// Pretends to be CPython 3.13, whose structures it forges.  Then a child copies pages, whose first
// words look like objects.  The argument is the number of pages; standard output gets the child's
// PID.

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kInterpreters = 1024, kCode = 200, kPage = 4096 };

// _Py_DebugOffsets in its first words.
__attribute__((section(".PyRuntime"), used)) static uint64_t runtime[256] = {
    [0] = 0x7970677562656478,  // "xdebugpy"
    [1] = 0x030d00f0,          // the version, 3.13
    [5] = kInterpreters,       // in the runtime: its interpreters
    [8] = 0,                   // in an interpreter: the next
    [9] = 8,                   // in an interpreter: its threads
    [21] = 0,                  // in a thread: the next
    [23] = 8,                  // in a thread: its frame
    [24] = 16,                 // in a thread: its number
    [28] = 80,                 // in a frame: its size
    [29] = 8,                  // in a frame: its caller
    [30] = 0,                  // in a frame: its code
    [31] = 56,                 // in a frame: its instruction
    [33] = 70,                 // in a frame: its owner
    [35] = 112,                // in a code object: its file
    [37] = 128,                // its qualified name
    [38] = 136,                // its table of lines
    [39] = 68,                 // its first line
    [43] = kCode,              // its instructions
};

static uint64_t interpreter[2];
static uint64_t other_thread[3];
static uint64_t thread[3];
static uint64_t frame[10];
static uint64_t code[32];
static uint64_t type[32];
static uint64_t metatype[32];
static uint64_t endless[3 * kPage / 8];  // a str, a bytes and a name without an end
static uint64_t escapes[16];             // a str

static uint64_t to(const void* object) { return (uint64_t)object; }

static void forge(void) {
  const uint64_t is_compact_ascii = 1 << 2 | 0x20 | 0x40;
  runtime[kInterpreters / 8] = to(interpreter);
  interpreter[0] = to(interpreter);
  interpreter[1] = to(other_thread);
  other_thread[0] = to(thread);
  thread[0] = to(other_thread);
  thread[1] = to(frame);
  thread[2] = (uint64_t)pthread_self();
  frame[0] = to(code) | 1;
  frame[1] = to(frame);
  frame[7] = to(code) + kCode;
  code[2] = 1;
  code[14] = to(endless);
  code[16] = to(escapes);
  code[17] = to(endless);
  memset(endless, 0x1b, sizeof endless);
  endless[2] = 8000;
  endless[4] = is_compact_ascii;
  escapes[2] = 8;
  escapes[4] = is_compact_ascii;
  memcpy(&escapes[5], "\033[31m\n\t\a", 8);
  type[1] = to(metatype);
  type[3] = to(&endless[8]);
  type[4] = 16;
  type[21] = 1 << 12;
  metatype[1] = to(metatype);
  metatype[21] = 1UL << 31;
}

int main(int count, char** arguments) {
  const size_t pages = count > 1 ? strtoul(arguments[1], NULL, 10) : 0;
  forge();
  char* memory =
      mmap(NULL, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  for (size_t i = 0; i < pages; i++) {
    uint64_t* object = (uint64_t*)(memory + i * kPage);
    object[0] = 1;
    object[1] = to(type);
  }
  usleep(500000);  // The program is seen by now, also by a slow measurement.
  const pid_t child = fork();
  if (child == 0) {
    for (size_t i = 0; i < pages; i++) memory[i * kPage] = 2;
    _exit(0);
  }
  waitpid(child, NULL, 0);
  printf("%d\n", child);
  return 0;
}
