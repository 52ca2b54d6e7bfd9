// deadline SECONDS COMMAND...: runs the command in a process group of its own and exits as it does.
// After SECONDS it prints the stacks of the group's processes, kills the group and exits with 124.
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void print_stacks(pid_t group) {
  DIR* proc = opendir("/proc");
  for (struct dirent* entry; proc != NULL && (entry = readdir(proc)) != NULL;) {
    const pid_t pid = atoi(entry->d_name);
    if (pid <= 0 || getpgid(pid) != group) continue;
    char command[64];
    snprintf(command, sizeof command, "eu-stack -p %d 1>&2 || cat /proc/%d/stack 1>&2", pid, pid);
    if (system(command) != 0) fprintf(stderr, "deadline: no stack of process %d\n", pid);
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
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    _exit(127);
  }
  setpgid(child, child);
  struct timespec now, end;
  clock_gettime(CLOCK_MONOTONIC, &end);
  end.tv_sec += atoi(argv[1]);
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    const struct timespec left = {end.tv_sec - now.tv_sec, 0};
    const int signal = left.tv_sec > 0 ? sigtimedwait(&ends, NULL, &left) : 0;
    if (signal == SIGINT || signal == SIGTERM) {
      kill(-child, SIGKILL);
      return 128 + signal;
    }
    if (left.tv_sec <= 0) {
      fprintf(stderr, "deadline: still running after %s s; its stacks:\n", argv[1]);
      print_stacks(child);
      kill(-child, SIGKILL);
      return 124;
    }
  }
  kill(-child, SIGKILL);  // processes that it left behind
  if (!WIFSIGNALED(status)) return WEXITSTATUS(status);
  const struct rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  signal(WTERMSIG(status), SIG_DFL);
  sigprocmask(SIG_SETMASK, &before, NULL);
  raise(WTERMSIG(status));
  return 128 + WTERMSIG(status);
}
