#pragma once

#include <cowshed/cow/backend.h>
#include <cowshed/cow/command.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow::test {

// Runs a command under the backend to its end, which is seen at once; but what is sampled may not
// be looked at in time on a busy machine.
inline Measurement measure_command(Backend& backend, const std::vector<std::string>& arguments) {
  auto command = Command::fork(arguments);
  EXPECT_TRUE(command);
  EXPECT_TRUE(backend.track_command(command->pid()));
  EXPECT_TRUE(command->release());
  siginfo_t info{};
  // A subject that stops itself is to be looked at before it goes on.
  while (info.si_code != CLD_EXITED && info.si_code != CLD_KILLED && info.si_code != CLD_DUMPED) {
    EXPECT_TRUE(backend.sample());
    if (info.si_code == CLD_STOPPED) ::kill(command->pid(), SIGCONT);
    std::this_thread::sleep_for(backend.interval());
    info = {};
    const int which = WEXITED | WSTOPPED | WNOHANG | WNOWAIT;
    if (::waitid(P_PID, static_cast<id_t>(command->pid()), &info, which) != 0) break;
  }
  EXPECT_TRUE(backend.sample());
  EXPECT_TRUE(command->wait());
  return backend.measurement();
}

// Where the subject's source has a function; it prints that when it is told "lines".
inline int line_of(const std::string& subject, const std::string& function) {
  std::istringstream printed(cowshed::test::run({subject, "lines", "0"}).out);
  std::string name;
  int line = 0;
  while (printed >> name >> line && name != function) continue;
  EXPECT_EQ(name, function);
  return line;
}

}  // namespace cowshed::cow::test
