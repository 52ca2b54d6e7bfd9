#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/tmux.h>

namespace cowshed::cowtop {
namespace {

constexpr auto kMuchTooLong = std::chrono::seconds(60);
constexpr auto kBetweenLooks = std::chrono::milliseconds(30);

}  // namespace

Tmux::Tmux(const std::string& words, const Options& options) {
  // A shell that has a trap goes on after the Ctrl-C that ends its command.  The leak checker waits
  // for ever in a process whose terminal goes: with it comes SIGCONT, which takes back the SIGSTOP
  // that the checker had sent.
  const std::string script = "trap : INT; before=$(stty -g)\n" +
                             std::string("env -u NO_COLOR ASAN_OPTIONS=detect_leaks=0 ") +
                             options.environment + " " + words +
                             "\nstatus=$?; [ \"$before\" = \"$(stty -g)\" ] && now=before || "
                             "now=after; echo \"status $status, as $now\"; exec sleep 1000";
  const std::string columns = std::to_string(options.columns);
  const std::string rows = std::to_string(options.rows);
  run({"-u", "-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", rows, script});
}

Tmux::~Tmux() { run({"kill-server"}); }

std::string Tmux::run(std::vector<std::string> words) const {
  words.insert(words.begin(), {"env", "LC_ALL=C.UTF-8", "tmux", "-S", folder_ / "socket"});
  return test::run(words).out;
}

void Tmux::press(const std::vector<std::string>& keys) {
  std::vector<std::string> words = {"send-keys"};
  words.insert(words.end(), keys.begin(), keys.end());
  run(words);
}

void Tmux::type(const std::string& text) { run({"send-keys", "-l", text}); }

void Tmux::resize(int columns, int rows) {
  run({"resize-window", "-x", std::to_string(columns), "-y", std::to_string(rows)});
}

std::string Tmux::screen() const { return run({"capture-pane", "-p"}); }

std::string Tmux::screen_with_attributes() const { return run({"capture-pane", "-p", "-e"}); }

bool Tmux::wait_until(const std::function<bool(const std::string&)>& is_it) const {
  const auto deadline = std::chrono::steady_clock::now() + kMuchTooLong;
  while (std::chrono::steady_clock::now() < deadline) {
    if (is_it(screen())) return true;
    std::this_thread::sleep_for(kBetweenLooks);
  }
  return false;
}

std::string Tmux::wait_for(std::string_view text) const {
  std::string found;
  wait_until([&](const std::string& screen) {
    found = screen;
    return screen.find(text) != std::string::npos;
  });
  return found;
}

pid_t Tmux::pid() const { return std::stoi(run({"list-panes", "-F", "#{pane_pid}"})); }

}  // namespace cowshed::cowtop
