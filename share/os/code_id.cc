#include <cstddef>
#include <link.h>
#include <string_view>

#include <cowshed/base/type_id.h>
#include <cowshed/share/os/code_id.h>

namespace cowshed::internal {
namespace {

using Segment = ElfW(Phdr);

bool is_readable(const dl_phdr_info& module, const Segment& part) {
  for (int i = 0; i < module.dlpi_phnum; ++i) {
    const Segment& loaded = module.dlpi_phdr[i];
    if (loaded.p_type == PT_LOAD && (loaded.p_flags & PF_R) != 0 &&
        part.p_vaddr >= loaded.p_vaddr &&
        part.p_vaddr + part.p_memsz <= loaded.p_vaddr + loaded.p_memsz) {
      return true;
    }
  }
  return false;
}

int add_module(dl_phdr_info* module, std::size_t, void* result) {
  // The kernel's vDSO: no address in it is stored.
  if (std::string_view(module->dlpi_name).find("vdso") != std::string_view::npos) return 0;
  std::uint64_t& id = *static_cast<std::uint64_t*>(result);
  id = mix_hash(id, module->dlpi_addr);
  id = hash_bytes(module->dlpi_phdr, sizeof(Segment) * module->dlpi_phnum, id);
  for (int i = 0; i < module->dlpi_phnum; ++i) {
    const Segment& part = module->dlpi_phdr[i];
    if (part.p_type == PT_NOTE && is_readable(*module, part)) {  // has the build ID
      id = hash_bytes(reinterpret_cast<const void*>(module->dlpi_addr + part.p_vaddr), part.p_memsz,
                      id);
    }
  }
  return 0;
}

}  // namespace

std::uint64_t code_id() {
  std::uint64_t id = kHashOfNothing;
  dl_iterate_phdr(&add_module, &id);
  return id;
}

}  // namespace cowshed::internal
