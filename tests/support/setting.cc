#include <exception>
#include <gtest/gtest.h>

#include <cowshed/tests/support/setting.h>

namespace cowshed::test {

Setting::Setting(const std::string& path, const std::string& value) : setting_(path) {
  setting_.set(value);
}

Setting::~Setting() {
  try {
    setting_.put_back();
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what();
  }
}

}  // namespace cowshed::test
