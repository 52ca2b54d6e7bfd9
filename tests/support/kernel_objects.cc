#include <bpf/bpf.h>

#include <cowshed/tests/support/kernel_objects.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {

KernelObjects objects_held_by(pid_t process) {
  KernelObjects held;
  const std::filesystem::path folder = "/proc/" + std::to_string(process) + "/fdinfo";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream info(entry.path());
    std::map<std::string, std::string>
        fields;  // "link_id:" and others; a link has a program's, too
    for (std::string name, value; info >> name && std::getline(info, value);) fields[name] = value;
    const bool is_link = fields.contains("link_id:");
    if (is_link || fields.contains("prog_id:")) {
      const auto id = std::stoul(fields.at(is_link ? "link_id:" : "prog_id:"));
      (is_link ? held.links : held.programs).push_back(static_cast<std::uint32_t>(id));
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
