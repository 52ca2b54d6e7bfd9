// The static libgcc finds the tables of an exception by _dl_find_object(), which glibc has
// since 2.35. This one, which only this module sees, does without in glibc 2.34.

#define _GNU_SOURCE 1  // as Python.h has it

#include <dlfcn.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>

#ifdef DLFO_STRUCT_HAS_EH_DBASE

static __typeof__(_dl_find_object)* of_libc;

__attribute__((constructor)) static void find_libcs(void) {
  *(void**)&of_libc = dlsym(RTLD_DEFAULT, "_dl_find_object");
}

static int look_into(struct dl_phdr_info* object, size_t size, void* found) {
  (void)size;
  struct dl_find_object* const result = found;
  const uintptr_t address = (uintptr_t)result->dlfo_eh_frame;
  const void* tables = NULL;
  int is_here = 0;
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)* const part = &object->dlpi_phdr[i];
    const uintptr_t begin = object->dlpi_addr + part->p_vaddr;
    if (part->p_type == PT_LOAD && address - begin < part->p_memsz) is_here = 1;
    if (part->p_type == PT_GNU_EH_FRAME) tables = (const void*)begin;
  }
  if (!is_here || tables == NULL) return 0;
  result->dlfo_eh_frame = (void*)tables;
  return 1;
}

// Sets only what libgcc reads.
int _dl_find_object(void* address, struct dl_find_object* result) {
  if (of_libc != NULL) return of_libc(address, result);
  result->dlfo_eh_frame = address;
  return dl_iterate_phdr(look_into, result) == 1 ? 0 : -1;
}

#endif
