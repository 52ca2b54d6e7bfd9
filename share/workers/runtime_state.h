#pragma once

namespace cowshed::launch {

// A worker's socket has this number in a process that was started by exec; nothing else but the
// standard streams is open there.
constexpr int kSocketNumber = 3;
constexpr const char* kWorkerArgument = "--cowshed-worker";

// argv[0]; null: there is no Runtime yet.
const char* program_name();

}  // namespace cowshed::launch
