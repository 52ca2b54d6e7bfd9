#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <cowshed/tests/tools/recordings.h>

namespace cowshed::cowtop {

// A program in a terminal, which is tmux's: keys are pressed and the screen is read.
class Tmux {
 public:
  struct Options {
    int columns = 80;
    int rows = 24;
    std::string environment = "LC_ALL=C.UTF-8";  // words for env(1)
  };
  // Runs the words in a shell.  When they end, the screen says "status N", and whether the
  // terminal's settings are "as before".
  explicit Tmux(const std::string& words) : Tmux(words, Options()) {}
  Tmux(const std::string& words, const Options& options);
  Tmux(const Tmux&) = delete;
  Tmux& operator=(const Tmux&) = delete;
  ~Tmux();

  // Keys by tmux's names: "Enter", "C-c", "j".
  void press(const std::vector<std::string>& keys);
  void type(const std::string& text);
  void resize(int columns, int rows);

  // Without the spaces at the ends of lines.
  std::string screen() const;
  std::string screen_with_attributes() const;
  // What is on the screen when `text` is, or after much too long a time.
  std::string wait_for(std::string_view text) const;
  // Whether the screen becomes one like that.
  bool wait_until(const std::function<bool(const std::string& screen)>& is_it) const;
  // Of the shell.
  pid_t pid() const;

 private:
  std::string run(std::vector<std::string> words) const;

  TestFolder folder_;
};

}  // namespace cowshed::cowtop
