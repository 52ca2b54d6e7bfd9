#pragma once

#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {

// copy_subject and its children, which copy 50 pages each and stay.  All end with this.
class Copiers : public Subprocess {
 public:
  explicit Copiers(std::size_t count = 1)
      : Subprocess({COPY_SUBJECT, "100", std::to_string(count), "50", "60000"}) {
    while (children_.size() < count) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      children_ = cow::ProcFiles().children(pid()).value();
    }
    std::ranges::sort(children_);
  }
  ~Copiers() {
    for (const pid_t child : children_) ::kill(child, SIGKILL);
  }

  const std::vector<pid_t>& children() const { return children_; }

 private:
  std::vector<pid_t> children_;
};

}  // namespace cowshed::test
