/* remedies CAUSE [follow]: a parent and children that copy by CAUSE, or that follow its remedy. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 4, BLOCKS = 40000, SIZE = 32 << 20, PAGE = 4096 };

static const char* cause;
static int follows;
static char* shared;
static char* blocks[BLOCKS];
extern char** environ;

static int is(const char* name) { return strcmp(cause, name) == 0; }

struct record {
  pthread_mutex_t lock;
  long hits;
  char data[400];
};
static struct record* records;
static pthread_mutex_t* locks;
static long* hits;

static void prepare(void) {
  if (is("stack")) return;
  shared = aligned_alloc(PAGE, SIZE);
  memset(shared, 1, SIZE);
  for (int i = 0; i < BLOCKS; ++i) memset(blocks[i] = malloc(500), 1, 500);
  records = calloc(BLOCKS, sizeof *records);
  memset(records, 0, BLOCKS * sizeof *records);
  for (int i = 0; i < BLOCKS; ++i) records[i].data[0] = 1;
  locks = calloc(BLOCKS, sizeof *locks); /* apart from the records */
  hits = calloc(BLOCKS, sizeof *hits);
  if (is("relocation") && follows && !dlopen(getenv("LIBRARY"), RTLD_NOW)) _exit(1);
}

static __attribute__((noinline)) void count(int i) { ++*(follows ? &hits[i] : &records[i].hits); }

static int deep(int depth) {
  volatile char page[PAGE];
  page[0] = (char)depth;
  return depth == 0 ? page[0] : deep(depth - 1) + page[0];
}

static void work(void) {
  char* own = follows ? malloc(SIZE) : shared;
  if (is("allocator free list") && !follows)
    for (int i = 0; i < BLOCKS; ++i) free(blocks[i]);
  if (is("own writes"))
    for (int i = 0; i < BLOCKS; ++i) count(i);
  for (int i = 0; is("lock or flag word") && i < BLOCKS; ++i) {
    pthread_mutex_t* lock = follows ? &locks[i] : &records[i].lock;
    pthread_mutex_lock(lock);
    pthread_mutex_unlock(lock);
  }
  if (is("bulk copy")) memcpy(own, shared + SIZE / 2, SIZE / 2);
  if (is("bulk fill")) memset(own, 2, SIZE);
  if (is("system call")) {
    const int zeros = open("/dev/zero", O_RDONLY);
    for (int at = 0; at < SIZE; at += 1 << 20)
      if (read(zeros, own + at, 1 << 20) != 1 << 20) _exit(1);
  }
  if (is("stack")) {
    deep(20);
    usleep(1000000); /* with all the others */
  }
  if (is("relocation") && !dlopen(getenv("LIBRARY"), RTLD_NOW)) _exit(1);
  if (is("program exit")) {
    if (follows) _exit(0);
    exit(0);
  }
  _exit(0);
}

/* As a program's own static objects are destroyed. */
static __attribute__((destructor)) void end(void) {
  if (is("program exit"))
    for (int i = 0; i < BLOCKS; ++i) free(blocks[i]);
}

/* Programs that are started, one after the other. */
static void run_programs(void) {
  char* const arguments[] = {"true", NULL};
  for (int k = 0; k < 300; ++k) {
    pid_t pid = 0;
    if (follows) {
      posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ);
    } else if ((pid = fork()) == 0) {
      for (int i = 0; i < 50; ++i) ++shared[(k + i) * PAGE];
      execv("/bin/true", arguments);
    }
    waitpid(pid, NULL, 0);
  }
}

/* A database that saves itself while it is written to. */
static void save(void) {
  const pid_t child = fork();
  if (child == 0) {
    usleep(300000);
    _exit(0);
  }
  if (follows) waitpid(child, NULL, 0);
  memset(shared, 3, SIZE);
}

int main(int argc, char** argv) {
  cause = argv[1];
  follows = argc > 2;
  prepare();
  if (is("programs")) {
    run_programs();
    _exit(0);
  }
  if (is("parent")) {
    save();
    wait(NULL);
    _exit(0);
  }
  deep(24);
  const int children = is("stack") && !follows ? 400 : CHILDREN;
  for (int i = 0; i < children; ++i)
    if (fork() == 0) work();
  while (wait(NULL) > 0) {
  }
  _exit(0);
}
