#include <algorithm>
#include <bpf/btf.h>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <cowshed/probes/loader/btf_constants.h>

namespace cowshed {
namespace {

void read_gfp_bits(const btf& kernel, const btf_type& type, BtfConstants& constants) {
  const struct btf_enum* members = btf_enum(&type);  // btf_enum is a function, too
  const auto name = [&](int i) {
    return std::string_view(btf__name_by_offset(&kernel, members[i].name_off));
  };
  if (btf_vlen(&type) == 0 || name(0).substr(0, 6) != "___GFP") return;
  for (int i = 0; i < btf_vlen(&type); ++i) {
    const std::uint32_t mask = std::uint32_t{1} << (static_cast<unsigned>(members[i].val) & 31U);
    if (name(i) == "___GFP_MOVABLE_BIT") constants.gfp_movable = mask;
    else if (name(i) == "___GFP_ZERO_BIT") constants.gfp_zero = mask;
    else if (name(i) == "___GFP_WRITE_BIT") constants.gfp_write = mask;
    else if (name(i) == "___GFP_NORETRY_BIT") constants.gfp_noretry = mask;
  }
}

void read_percpu_distance(const btf& kernel, const btf_type& section, BtfConstants& constants) {
  std::optional<std::int64_t> events;
  std::optional<std::int64_t> runqueues;
  const struct btf_var_secinfo* variables = btf_var_secinfos(&section);
  for (int i = 0; i < btf_vlen(&section); ++i) {
    const btf_type* variable = btf__type_by_id(&kernel, variables[i].type);
    const std::string_view name(btf__name_by_offset(&kernel, variable->name_off));
    if (name == "vm_event_states") events = variables[i].offset;
    else if (name == "runqueues") runqueues = variables[i].offset;
  }
  if (events && runqueues) constants.vm_events_from_runqueue = *events - *runqueues;
}

// The event exists if the kernel has huge pages.  `cfs_rq` leads to its count (split_count() of
// huge_split.bpf.h).
bool finds_splits(const btf& kernel, const BtfConstants& constants) {
  const std::int32_t events = btf__find_by_name_kind(&kernel, "vm_event_item", BTF_KIND_ENUM);
  const std::int32_t entity = btf__find_by_name_kind(&kernel, "sched_entity", BTF_KIND_STRUCT);
  if (events < 0 || entity < 0) return false;
  const btf_type* items = btf__type_by_id(&kernel, static_cast<std::uint32_t>(events));
  const btf_type* members = btf__type_by_id(&kernel, static_cast<std::uint32_t>(entity));
  const auto has_name = [&](const auto* first, int count, std::string_view name) {
    return std::any_of(first, first + count, [&](const auto& each) {
      return std::string_view(btf__name_by_offset(&kernel, each.name_off)) == name;
    });
  };
  const bool has_event = has_name(btf_enum(items), btf_vlen(items), "THP_SPLIT_PMD");
  return !has_event || (constants.vm_events_from_runqueue != 0 &&
                        has_name(btf_members(members), btf_vlen(members), "cfs_rq"));
}

// 0: the kernel does not have the tracepoint.
int arguments_of_event(const btf& kernel, const std::string& event) {
  const std::int32_t name =
      btf__find_by_name_kind(&kernel, ("btf_trace_" + event).c_str(), BTF_KIND_TYPEDEF);
  if (name < 0) return 0;
  // A typedef of a pointer to a function, whose first argument is the tracepoint's own data.
  const btf_type* pointer =
      btf__type_by_id(&kernel, btf__type_by_id(&kernel, static_cast<std::uint32_t>(name))->type);
  const btf_type* function = btf__type_by_id(&kernel, pointer->type);
  return btf_is_func_proto(function) ? btf_vlen(function) - 1 : 0;
}

}  // namespace

BtfConstants read_btf_constants(const btf& kernel) {
  BtfConstants constants;
  for (std::uint32_t id = 1; id < btf__type_cnt(&kernel); ++id) {
    const btf_type* type = btf__type_by_id(&kernel, id);
    if (btf_is_enum(type) && type->name_off == 0) {
      read_gfp_bits(kernel, *type, constants);
    } else if (btf_is_datasec(type) &&
               std::string_view(btf__name_by_offset(&kernel, type->name_off)) == ".data..percpu") {
      read_percpu_distance(kernel, *type, constants);
    }
  }
  // The type of the guard in which a tracepoint calls its programs.
  constants.may_be_preempted =
      btf__find_by_name_kind(&kernel, "class_srcu_fast_notrace_t", BTF_KIND_TYPEDEF) > 0;
  constants.counts_splits = finds_splits(kernel, constants);
  const auto function = [&](const char* name) {
    return static_cast<std::uint32_t>(
        std::max(btf__find_by_name_kind(&kernel, name, BTF_KIND_FUNC), 0));
  };
  constants.kernel_clone = function("kernel_clone");
  constants.has_events_of_memory = function("__percpu_counter_init_many") != 0 &&
                                   arguments_of_event(kernel, "percpu_alloc_percpu") > 0;
  constexpr int kArgumentsWithOrder = 4;
  const int of_collapse = arguments_of_event(kernel, "mm_collapse_huge_page");
  constants.has_collapse_events = of_collapse > 0;
  constants.has_collapse_order = of_collapse >= kArgumentsWithOrder;
  return constants;
}

BtfConstants read_btf_constants() {
  const std::unique_ptr<btf, decltype(&btf__free)> kernel(btf__load_vmlinux_btf(), btf__free);
  return kernel ? read_btf_constants(*kernel) : BtfConstants{};
}

}  // namespace cowshed
