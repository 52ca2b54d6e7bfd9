#pragma once

#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>

#include <cowshed/cow/measurement.h>
#include <cowshed/cow/sandbox/helper_process.h>

namespace cowshed::cowtop {

// Where a command's cgroup may lie, and what has to change for it.  All are folders.
struct CgroupPlace {
  std::string mount;   // of cgroup v2
  std::string own;     // cowtop's cgroup, in which the command was forked
  std::string folder;  // the command's
  std::string aside;   // where all processes of `own` go meanwhile; empty: they stay
};

// Finds the place for the cgroup `path`, as /proc/PID/cgroup has it, of this process, `self`.  Only
// the root may have processes beside children with a memory controller.  So the place is
//   - below the root, if cowtop is in it;
//   - below cowtop's cgroup, if only cowtop and its children are in it, as in a service or a
//     container of its own.  They move aside meanwhile, and all limits stay in force;
//   - beside the scope of a login session.  Not beside a service or a container: systemd and the
//     engine stop, confine and recognise their processes by the cgroup.
// nullopt: there is none.  To reset memory.peak of cowtop's cgroup would count cowtop itself.
std::optional<CgroupPlace> find_cgroup_place(const std::string& mount, const std::string& path,
                                             pid_t self);

// Whether both cgroups treat a process alike: all settings are the same, and `own` has no BPF
// programs.
bool has_same_settings(const std::string& own, const std::string& fresh);

// A memory cgroup (v2) that a command has to itself and its descendants.  The destructor moves the
// processes that are left there back to cowtop's own cgroup, and removes it; a helper process does
// so if cowtop is killed.  Cgroups that the command has made below it stay if they have processes.
class CommandCgroup {
 public:
  // Moves the `command`, a child that has not called exec, there.  nullopt: there can be none, as
  // with cgroup v1, in most containers, without root, before Linux 5.19, or if cowtop's cgroup has
  // limits that would not hold for the command.
  static std::optional<CommandCgroup> make(pid_t command);

  CommandCgroup(CommandCgroup&&) = default;
  ~CommandCgroup();

  // nullopt: it cannot be read.
  std::optional<cow::MemoryCgroup> memory() const;

 private:
  explicit CommandCgroup(CgroupPlace place);
  bool take(pid_t command);

  CgroupPlace place_;
  std::unique_ptr<cow::HelperProcess> helper_;
};

}  // namespace cowshed::cowtop
