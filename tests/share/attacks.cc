#include "attacks.h"

#include <array>
#include <cstring>
#include <fstream>
#include <linux/capability.h>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace cowshed::test {
namespace {

bool has_capability(unsigned number) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("CapEff:")) {
      return ((std::stoull(line.substr(7), nullptr, 16) >> number) & 1U) != 0;
    }
  }
  return false;
}

int yama_scope() {
  std::ifstream file("/proc/sys/kernel/yama/ptrace_scope");
  int scope = 0;  // as without Yama
  file >> scope;
  return scope;
}

const char* to_string(Effect effect) {
  switch (effect) {
    case Effect::nothing: return "nothing changes";
    case Effect::own_view: return "own view changes";
    case Effect::victims_view: return "victim's view changes";
    case Effect::all: break;
  }
  return "bytes change for all";
}

}  // namespace

std::string to_string(const Outcome& outcome) {
  std::string how = "allowed";
  if (outcome.signal != 0) {
    how = std::string("dies by SIG") + sigabbrev_np(outcome.signal);
  } else if (outcome.error != 0) {
    const char* name = strerrorname_np(outcome.error);
    how = "refused with " + (name == nullptr ? std::to_string(outcome.error) : std::string(name));
  }
  return how + ", " + to_string(outcome.effect);
}

Privileges Privileges::of_this_process() {
  // The victim allows everybody to trace it, which is all that Yama's scope 1 asks.
  return {yama_scope() < 2 || (yama_scope() == 2 && has_capability(CAP_SYS_PTRACE)),
          has_capability(CAP_CHECKPOINT_RESTORE) || has_capability(CAP_SYS_ADMIN),
          has_capability(CAP_SYS_NICE)};
}

long need(long result, const char* what) {
  if (result == -1) {
    const char* name = strerrorname_np(errno);
    throw std::runtime_error(std::string(what) + ": " + (name == nullptr ? "?" : name));
  }
  return result;
}

void* raw_mmap(void* address, std::size_t size, int protection, int flags, int fd, off_t offset) {
  return reinterpret_cast<void*>(syscall(SYS_mmap, address, size, protection, flags, fd, offset));
}

const std::byte* payload() {
  alignas(kPayloadSize) static const auto bytes = [] {
    std::array<std::byte, kPayloadSize> result{};
    result.fill(std::byte{0xEE});
    return result;
  }();
  return bytes.data();
}

int payload_file() {
  const int fd = static_cast<int>(need(memfd_create("payload", MFD_CLOEXEC), "memfd_create"));
  need(pwrite(fd, payload(), kPayloadSize, 0), "filling a file");
  return fd;
}

int payload_pipe() {
  std::array<int, 2> ends{};
  need(pipe(ends.data()), "pipe");
  need(write(ends[1], payload(), kPayloadSize), "filling a pipe");
  return ends[0];
}

int store(void* to) {
  auto* bytes = static_cast<volatile unsigned char*>(to);
  for (std::size_t i = 0; i < 64; ++i) {
    bytes[i] = 0xEE;
  }
  return 0;
}

int store_if_mapped(void* mapped, off_t offset) {
  return mapped == MAP_FAILED ? errno : store(static_cast<std::byte*>(mapped) + offset);
}

}  // namespace cowshed::test
