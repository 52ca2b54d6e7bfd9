#include <bpf/bpf.h>

#include <cowshed/tests/support/kernel_objects.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {

KernelObjects objects_held_by(pid_t process) {
  KernelObjects held;
  const std::filesystem::path folder = "/proc/" + std::to_string(process) + "/fdinfo";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream info(entry.path());
    bool is_link = false;
    for (std::string line; std::getline(info, line);) {
      if (line.rfind("link_id:", 0) == 0) {
        held.links.push_back(static_cast<std::uint32_t>(std::stoul(line.substr(8))));
        is_link = true;
      } else if (line.rfind("prog_id:", 0) == 0 && !is_link) {
        held.programs.push_back(static_cast<std::uint32_t>(std::stoul(line.substr(8))));
      }
    }
  }
  return held;
}

std::size_t still_there(const KernelObjects& objects) {
  std::size_t count = 0;
  const auto probe = [&count](int fd) {
    if (fd >= 0) {
      ++count;
      close(fd);
    }
  };
  for (const std::uint32_t id : objects.programs) probe(bpf_prog_get_fd_by_id(id));
  for (const std::uint32_t id : objects.links) probe(bpf_link_get_fd_by_id(id));
  return count;
}

bool are_gone(const KernelObjects& objects) {
  for (int i = 0; i < 100 && still_there(objects) != 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  return still_there(objects) == 0;
}

}  // namespace cowshed::test
