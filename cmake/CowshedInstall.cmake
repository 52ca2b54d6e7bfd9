include(CMakePackageConfigHelpers)
set(cowshed_config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Cowshed)
configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/cmake/CowshedConfig.cmake.in ${PROJECT_BINARY_DIR}/CowshedConfig.cmake
  INSTALL_DESTINATION ${cowshed_config_dir})
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/CowshedConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/CowshedConfig.cmake
              ${PROJECT_BINARY_DIR}/CowshedConfigVersion.cmake DESTINATION ${cowshed_config_dir})
install(EXPORT CowshedTargets NAMESPACE cowshed:: DESTINATION ${cowshed_config_dir})
# pkg-config's names of cowshed::share and cowshed::malloc.
set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH to_prefix /${pkgconfig_dir} /)
set(pkgconfig_names cowshed)
if(NOT COWSHED_SANITIZE)
  list(APPEND pkgconfig_names cowshed-malloc)
endif()
foreach(name ${pkgconfig_names})
  configure_file(${PROJECT_SOURCE_DIR}/cmake/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${pkgconfig_dir})
endforeach()
# The packages have them as Debian's file copyright.
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT licenses)
install(DIRECTORY LICENSES DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT licenses)
