#include "every_method.h"

namespace cowshed::test {

void EveryMethod::TearDown() {
  server_.reset();
  LeavesNothing::TearDown();
}

WorkersOptions EveryMethod::with(WorkersOptions options) {
  options.method = GetParam();
  if (options.method == Start::forkserver) {
    if (!server_) server_ = value_of(ForkServer::start());
    options.server = &*server_;
  }
  return options;
}

std::string name_of_method(const testing::TestParamInfo<Start>& info) {
  constexpr std::array kNames = {"Fork", "Spawn", "ForkServer"};
  return kNames.at(static_cast<std::size_t>(info.param));
}

}  // namespace cowshed::test

int main(int argc, char** argv) {
  const cowshed::Runtime runtime(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  // A process with arenas has a descriptor of its process tree to its end.
  {
    const auto arena = cowshed::Arena::create({.name = "first", .capacity = 1});
  }
  return RUN_ALL_TESTS();
}
