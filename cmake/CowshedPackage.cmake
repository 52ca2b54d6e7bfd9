# cpack -G DEB in the build folder makes packages/{cowtop,libcowshed-dev,python3-cowshed}_*.deb; the last, for
# /usr/bin/python3, only where its headers are installed.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME cowshed)
set(CPACK_PACKAGE_VENDOR "The Cowshed authors")
# Whoever publishes the packages sets -D CPACK_PACKAGE_CONTACT="Name <address>".
set(CPACK_PACKAGE_CONTACT "The Cowshed authors <cowshed@example.org>" CACHE STRING "The packages' maintainer")
# The default, which is left out: each package has a summary of its own.
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_NAME} built using CMake")
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR}/packages)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_COMPONENTS_ALL cowtop dev)

set(CPACK_DEBIAN_COWTOP_PACKAGE_NAME cowtop)
set(CPACK_DEBIAN_COWTOP_PACKAGE_SECTION utils)
set(CPACK_DEBIAN_COWTOP_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_COWTOP_DESCRIPTION
    "counts the memory that forked processes copy
Programs fork workers that share their memory until somebody writes to it.
cowtop counts what each process copies, exactly by eBPF or without privileges
from /proc: by process, by code and by object. It records, compares, and holds
tests to a budget.")

set(CPACK_DEBIAN_DEV_PACKAGE_NAME libcowshed-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libc6-dev, libexpected-dev")
set(CPACK_DEBIAN_DEV_PACKAGE_RECOMMENDS
    "cmake, libbpf-dev, libcapstone-dev, libcereal-dev, libdw-dev, libelf-dev, libfmt-dev, pkg-config")
set(CPACK_DEBIAN_DEV_DESCRIPTION
    "fork-aware memory sharing, to be linked statically
Data in an arena that is frozen before the fork, so that no child can copy it
by accident; references, channels and workers to go with it; and a meter that
counts, in a test, what a forked process copies.")

if(COWSHED_PYTHONS_BUILT MATCHES "(3)\\.([0-9]+)=/usr/bin/python3(;|$)")
  set(python python_${CMAKE_MATCH_1}.${CMAKE_MATCH_2})
  math(EXPR next "${CMAKE_MATCH_2} + 1")
  list(APPEND CPACK_COMPONENTS_ALL python)
  set(CPACK_DEBIAN_PYTHON_PACKAGE_NAME python3-cowshed)
  set(CPACK_DEBIAN_PYTHON_PACKAGE_SECTION python)
  set(CPACK_DEBIAN_PYTHON_PACKAGE_SHLIBDEPS ON)
  set(CPACK_DEBIAN_PYTHON_PACKAGE_DEPENDS "python3 (>= 3.${CMAKE_MATCH_2}~), python3 (<< 3.${next}~)")
  set(CPACK_DEBIAN_PYTHON_DESCRIPTION
      "share Python objects with forked workers, without copies
The package cowshed for Debian's Python: from 3.12 freeze() makes all objects
immortal before a fork, so that children which read them copy no page; and
queues and references to go with it.")
  set(control ${PROJECT_BINARY_DIR}/python3-cowshed)
  file(CONFIGURE OUTPUT ${control}/postinst CONTENT "#!/bin/sh\nset -e\npy3compile -p python3-cowshed\n")
  file(CONFIGURE OUTPUT ${control}/prerm CONTENT "#!/bin/sh\nset -e\npy3clean -p python3-cowshed\n")
  set(CPACK_DEBIAN_PYTHON_PACKAGE_CONTROL_EXTRA ${control}/postinst ${control}/prerm)
  install(CODE "
    set(prefix \$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX})
    execute_process(COMMAND /usr/bin/python3 -B ${PROJECT_SOURCE_DIR}/share/python/backend.py
                            $<TARGET_FILE:${python}> \${prefix} COMMAND_ERROR_IS_FATAL ANY)
    execute_process(COMMAND ${CMAKE_STRIP} \${prefix}/lib/python3/dist-packages/cowshed/$<TARGET_FILE_NAME:${python}>
                            \${prefix}/lib/python3/dist-packages/cowshed/$<TARGET_FILE_NAME:cowshed_undo>
                    COMMAND_ERROR_IS_FATAL ANY)" COMPONENT python EXCLUDE_FROM_ALL)
endif()

# Debian wants both of each package.
set(changelog ${PROJECT_BINARY_DIR}/changelog)
string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC)
file(WRITE ${changelog} "cowshed (${PROJECT_VERSION}) unstable; urgency=medium\n\n  * Release ${PROJECT_VERSION}.\n\n"
                        " -- ${CPACK_PACKAGE_CONTACT}  ${date}\n")
execute_process(COMMAND gzip -9nf ${changelog} COMMAND_ERROR_IS_FATAL ANY)
foreach(component IN LISTS CPACK_COMPONENTS_ALL)
  string(TOUPPER ${component} upper)
  install(FILES ${CMAKE_CURRENT_LIST_DIR}/copyright ${changelog}.gz
          DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${CPACK_DEBIAN_${upper}_PACKAGE_NAME}
          COMPONENT ${component} EXCLUDE_FROM_ALL)
endforeach()
# CMake strips programs alone.
install(CODE "
  if(CMAKE_INSTALL_DO_STRIP)
    file(GLOB libraries \$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_LIBDIR}/libcowshed_*.a)
    execute_process(COMMAND ${CMAKE_STRIP} --strip-debug \${libraries} COMMAND_ERROR_IS_FATAL ANY)
  endif()" COMPONENT dev)
include(CPack)
