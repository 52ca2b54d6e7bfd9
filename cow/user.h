#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>

namespace cowshed::cow {

// Whom a process can be run as.
struct User {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // all of the user's, `gid` among them
  std::string home;
};

// By name, or by number.  Errors: invalid_argument where there is no such user.
Expected<User> find_user(const std::string& name);

// This process's environment, with HOME, USER and LOGNAME as `user` has them.
std::vector<std::string> environment_of(const User& user);

// Makes this process one of `user`'s.  For a forked child: allocates nothing.  Returns 0 or an
// errno.
int become(const User& user) noexcept;

}  // namespace cowshed::cow
