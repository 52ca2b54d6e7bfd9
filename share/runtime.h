#pragma once

namespace cowshed {

// What makes a program one that can be started again as a worker, by spawn or as a forkserver.  The
// first thing in main():
//
//   int main(int argc, char** argv) {
//     cowshed::Runtime runtime(argc, argv);
//
// In a process that was started as a worker the constructor runs the worker and ends the process by
// _exit(); everywhere else it returns at once.  What comes before it, and constructors of static
// objects, run in workers too.
//
// A program that has more rights than its caller (set-user-ID, set-group-ID, file capabilities) is
// no worker of anybody: its caller would choose what it does.  There only Start::fork works; spawn
// and forkserver are an error that says so.
class Runtime {
 public:
  Runtime(int argc, char** argv);
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
};

}  // namespace cowshed
