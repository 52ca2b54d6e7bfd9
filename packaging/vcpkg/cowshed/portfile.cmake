# An overlay port in the sources that it builds: vcpkg install cowshed --overlay-ports=packaging/vcpkg
set(SOURCE_PATH "${CURRENT_PORT_DIR}/../../..")
vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS -DCOWSHED_BUILD_COW=OFF -DCOWSHED_BUILD_TOOLS=OFF -DCOWSHED_BUILD_PYTHON=OFF
          -DCOWSHED_BUILD_BENCH=OFF -DCOWSHED_BUILD_TESTS=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/Cowshed)
vcpkg_fixup_pkgconfig()
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include" "${CURRENT_PACKAGES_DIR}/debug/share"
     "${CURRENT_PACKAGES_DIR}/share/doc")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/cmake/copyright")
