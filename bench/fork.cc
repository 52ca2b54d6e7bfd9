#include <cerrno>
#include <stdexcept>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include "family.h"
#include "holder.h"
#include "peer.h"

// The time of the call fork() in the parent, by the memory of its data.  The child ends at once.
namespace cowshed::bench {

double time_fork() {
  const auto once = [] {
    const std::uint64_t before = now_ns();
    const pid_t pid = fork();
    if (pid == 0) _exit(0);
    const std::uint64_t after = now_ns();
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
      throw std::system_error(errno, std::system_category(), "fork");
    if (status != 0) throw std::runtime_error("a child did not end as it should");
    return static_cast<double>(after - before);
  };
  once();  // the first is slower
  return median(repeat(once));
}

void add_fork() {
  const auto add_one = [](const std::string& name, const Held& held) {
    add("fork/" + name, [held](benchmark::State&) {
      return holder(held).ask("fork").front();
    })->Repetitions(is_quick() ? 1 : 15);
  };
  for (const Held& held : all_held()) add_one(held.name(), held);
  add_one("none_again", {"none", 0});
}

}  // namespace cowshed::bench
