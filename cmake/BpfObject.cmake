# cowshed_bpf_skeleton(TARGET SOURCE): compiles SOURCE (name.bpf.c) and makes the interface library
# TARGET, through which <name.skel.h> is included.
# The build machine's own kernel plays no part: no vmlinux.h.

function(cowshed_need_tool variable package)
  find_program(${variable} NAMES ${ARGN} PATHS /usr/sbin /sbin)
  if(NOT ${variable})
    list(GET ARGN 0 name)
    message(FATAL_ERROR "The eBPF probes need '${name}': install Debian's package ${package}.")
  endif()
endfunction()

cowshed_need_tool(COWSHED_CLANG clang-19 clang-19 clang clang-22 clang-16 clang-14)
cowshed_need_tool(COWSHED_BPFTOOL bpftool bpftool)
find_package(PkgConfig REQUIRED)
pkg_check_modules(COWSHED_LIBBPF IMPORTED_TARGET GLOBAL libbpf>=1.0)
if(NOT COWSHED_LIBBPF_FOUND)
  message(FATAL_ERROR "The eBPF probes need libbpf 1.0 or newer: install Debian's package "
                      "libbpf-dev.")
endif()

function(cowshed_bpf_skeleton target source)
  get_filename_component(name ${source} NAME)
  string(REPLACE ".bpf.c" "" name ${name})
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/${target})
  file(MAKE_DIRECTORY ${folder})
  # BTF names the source files, and a package does not tell where it was built.
  # <linux/types.h> needs <asm/types.h>, which Debian keeps in the folder of the architecture.
  add_custom_command(
    OUTPUT ${folder}/${name}.bpf.o
    COMMAND ${COWSHED_CLANG} -target bpf -mcpu=v3 -O2 -g -Wall -Werror -D__TARGET_ARCH_$<IF:$<STREQUAL:${CMAKE_SYSTEM_PROCESSOR},aarch64>,arm64,x86>
            -fdebug-compilation-dir=. -fdebug-prefix-map=${PROJECT_SOURCE_DIR}/=
            -I ${PROJECT_SOURCE_DIR}/include -isystem ${CMAKE_SYSROOT}/usr/include/${CMAKE_LIBRARY_ARCHITECTURE}
            -MD -MF ${folder}/${name}.d -MT ${folder}/${name}.bpf.o -c ${source} -o ${folder}/${name}.o
    # Leaves DWARF out; BTF stays.
    COMMAND ${COWSHED_BPFTOOL} gen object ${folder}/${name}.bpf.o ${folder}/${name}.o
    DEPENDS ${source}
    DEPFILE ${folder}/${name}.d
    COMMENT "Compiling ${target}"
    VERBATIM)
  add_custom_command(
    OUTPUT ${folder}/${name}.skel.h
    COMMAND ${COWSHED_BPFTOOL} gen skeleton ${folder}/${name}.bpf.o name ${name}_bpf >
            ${folder}/${name}.skel.h
    COMMAND sed -i -e "1i // NOLINTBEGIN" -e "$a // NOLINTEND" ${folder}/${name}.skel.h
    DEPENDS ${folder}/${name}.bpf.o
    COMMENT "Generating the skeleton of ${target}"
    VERBATIM)
  add_custom_target(${target}_files DEPENDS ${folder}/${name}.skel.h)
  add_library(${target} INTERFACE)
  target_include_directories(${target} SYSTEM INTERFACE ${folder})
  add_dependencies(${target} ${target}_files)
endfunction()
