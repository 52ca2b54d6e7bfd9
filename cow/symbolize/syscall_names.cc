#include <algorithm>
#include <iterator>
#include <string_view>

#include <cowshed/cow/symbolize/syscall_names.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {
namespace {

struct SystemCall {
  std::uint64_t number;
  std::string_view name;
};

constexpr SystemCall kSystemCalls[] = {
// CMake makes it from <asm/unistd_64.h> and <asm/unistd_32.h>: lines such as {17, "pread64"},
#include "system_call_list.inc"
};

}  // namespace

std::string system_call_name(std::uint64_t number) {
  const auto* const found = std::ranges::find(kSystemCalls, number, &SystemCall::number);
  return found == std::end(kSystemCalls) ? std::string() : std::string(found->name);
}

}  // namespace cowshed::cow
