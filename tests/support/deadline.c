// deadline SECONDS COMMAND...: runs the command and exits as it does, after killing the processes
// that it left behind.  After SECONDS it prints the stacks of the command's processes, kills them,
// and exits with 124.
#define _GNU_SOURCE
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pid_t parent_of(pid_t pid) {
  char path[32], line[512] = "";
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE* stat = fopen(path, "r");
  if (stat == NULL) return 0;
  const char* name_end = fgets(line, sizeof line, stat) != NULL ? strrchr(line, ')') : NULL;
  fclose(stat);
  return name_end != NULL ? atoi(name_end + 4) : 0;  // ") S PARENT"
}

static int is_below_us(pid_t pid) {
  while (pid > 1 && pid != getpid()) pid = parent_of(pid);
  return pid == getpid();
}

static void print_stack(pid_t pid) {
  char command[64];
  snprintf(command, sizeof command, "eu-stack -p %d 1>&2 || cat /proc/%d/stack 1>&2", pid, pid);
  if (system(command) != 0) fprintf(stderr, "deadline: no stack of process %d\n", pid);
}

static void kill_process(pid_t pid) { kill(pid, SIGKILL); }

// Whatever group or session they are in: orphans come to us (PR_SET_CHILD_SUBREAPER).
static int for_each_process(void (*act)(pid_t)) {
  int count = 0;
  DIR* proc = opendir("/proc");
  for (struct dirent* entry; proc != NULL && (entry = readdir(proc)) != NULL;) {
    const pid_t pid = atoi(entry->d_name);
    if (pid <= 0 || pid == getpid() || !is_below_us(pid)) continue;
    act(pid);
    ++count;
  }
  if (proc != NULL) closedir(proc);
  return count;
}

static void kill_all(void) {
  const struct timespec pause = {0, 10000000};
  for (int tries = 0; tries < 500 && for_each_process(kill_process) > 0; ++tries) {
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
    nanosleep(&pause, NULL);
  }
}

int main(int argc, char** argv) {
  if (argc < 3 || atoi(argv[1]) <= 0) {
    fprintf(stderr, "usage: deadline SECONDS COMMAND...\n");
    return 2;
  }
  sigset_t ends, before;
  sigemptyset(&ends);
  sigaddset(&ends, SIGCHLD);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  sigprocmask(SIG_BLOCK, &ends, &before);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    _exit(127);
  }
  struct timespec now, end;
  clock_gettime(CLOCK_MONOTONIC, &end);
  end.tv_sec += atoi(argv[1]);
  int status = 0;
  for (;;) {
    pid_t ended;
    while ((ended = waitpid(-1, &status, WNOHANG)) > 0 && ended != child) continue;
    if (ended == child) break;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const struct timespec left = {end.tv_sec - now.tv_sec, 0};
    const int signal = left.tv_sec > 0 ? sigtimedwait(&ends, NULL, &left) : 0;
    if (signal == SIGINT || signal == SIGTERM) {
      kill_all();
      return 128 + signal;
    }
    if (left.tv_sec <= 0) {
      fprintf(stderr, "deadline: still running after %s s; its stacks:\n", argv[1]);
      for_each_process(print_stack);
      kill_all();
      return 124;
    }
  }
  kill_all();
  if (!WIFSIGNALED(status)) return WEXITSTATUS(status);
  const struct rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  signal(WTERMSIG(status), SIG_DFL);
  sigprocmask(SIG_SETMASK, &before, NULL);
  raise(WTERMSIG(status));
  return 128 + WTERMSIG(status);
}
