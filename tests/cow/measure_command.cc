#include <cowshed/cow/command.h>
#include <cowshed/tests/cow/measure_command.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow::test {

Measurement measure_command(Backend& backend, const std::vector<std::string>& arguments) {
  auto command = Command::fork(arguments);
  EXPECT_TRUE(command);
  EXPECT_TRUE(backend.track_command(command->pid()));
  EXPECT_TRUE(command->release());
  siginfo_t info{};
  constexpr int kWhich = WEXITED | WNOHANG | WNOWAIT;
  const auto has_ended = [&] {
    return ::waitid(P_PID, static_cast<id_t>(command->pid()), &info, kWhich) != 0 ||
           info.si_pid != 0;
  };
  do {
    EXPECT_TRUE(backend.sample());
    std::this_thread::sleep_for(backend.interval());
  } while (!has_ended());
  EXPECT_TRUE(backend.sample());
  EXPECT_TRUE(command->wait());
  return backend.measurement();
}

}  // namespace cowshed::cow::test
