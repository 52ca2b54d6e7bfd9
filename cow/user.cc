#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <grp.h>
#include <pwd.h>
#include <string_view>
#include <system_error>
#include <unistd.h>

#include <cowshed/cow/user.h>

namespace cowshed::cow {

Expected<User> find_user(const std::string& name) {
  const passwd* entry = ::getpwnam(name.c_str());
  uid_t uid = 0;
  const char* end = name.data() + name.size();
  const auto number = std::from_chars(name.data(), end, uid);
  if (entry == nullptr && number.ec == std::errc() && number.ptr == end) entry = ::getpwuid(uid);
  if (entry == nullptr)
    return make_error(ErrorCode::invalid_argument, "'" + name + "': there is no such user");
  User user{entry->pw_name, entry->pw_uid, entry->pw_gid, std::vector<gid_t>(16), entry->pw_dir};
  auto count = static_cast<int>(user.groups.size());
  while (::getgrouplist(user.name.c_str(), user.gid, user.groups.data(), &count) < 0)
    user.groups.resize(static_cast<std::size_t>(count));
  user.groups.resize(static_cast<std::size_t>(count));
  return user;
}

std::vector<std::string> environment_of(const User& user) {
  const std::array<std::string, 3> set = {"HOME=" + user.home, "USER=" + user.name,
                                          "LOGNAME=" + user.name};
  const auto is_set = [&](std::string_view variable) {
    return std::any_of(set.begin(), set.end(), [&](const std::string& each) {
      return variable.starts_with(each.substr(0, each.find('=') + 1));
    });
  };
  std::vector<std::string> result(set.begin(), set.end());
  for (char** each = environ; *each != nullptr; ++each)
    if (!is_set(*each)) result.emplace_back(*each);
  return result;
}

int become(const User& user) noexcept {
  // In this order: who is no longer root may change no groups.
  if (::setgroups(user.groups.size(), user.groups.data()) != 0 ||
      ::setresgid(user.gid, user.gid, user.gid) != 0 ||
      ::setresuid(user.uid, user.uid, user.uid) != 0) {
    return errno;
  }
  return 0;
}

}  // namespace cowshed::cow
