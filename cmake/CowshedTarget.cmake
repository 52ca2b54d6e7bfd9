# cowshed_library(NAME SOURCES... [PUBLIC_HEADERS ...] ): a static library cowshed::NAME that is
# installed with its headers.  cowshed_compile(TARGET): the project's own warnings and sanitizers.

find_package(tl-expected REQUIRED)

function(cowshed_compile target)
  # What ccache has of a file that says __FILE__, as all tests do, is good for every clone.
  target_compile_options(${target} PRIVATE -fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=)
  target_compile_options(
    ${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion
                      -Wnon-virtual-dtor -Wold-style-cast>)
  # libstdc++ 12's own stable_sort, and a web page that is one literal.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wno-deprecated-declarations
                                           -Wno-overlength-strings>)
  # g++ warns of GoogleTest's macros below an if without braces, which have an else of their own.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-dangling-else>)
  get_target_property(is_unity ${target} UNITY_BUILD)
  if(is_unity)
    # A unity file is taken for a header there.
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-subobject-linkage>)
  endif()
  if(COWSHED_WARNINGS_AS_ERRORS)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
  endif()
  if(COWSHED_SANITIZE)
    if(CMAKE_CXX_COMPILER_ID STREQUAL Clang AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 21)
      # What gcc and newer ones define by themselves.
      if(COWSHED_SANITIZE MATCHES address)
        target_compile_definitions(${target} PRIVATE __SANITIZE_ADDRESS__)
        # Its second stack is memory that is copied, too.
        target_compile_options(${target} PRIVATE -fsanitize-address-use-after-return=never)
      elseif(COWSHED_SANITIZE MATCHES thread)
        target_compile_definitions(${target} PRIVATE __SANITIZE_THREAD__)
      endif()
    endif()
    target_compile_options(${target} PRIVATE -fsanitize=${COWSHED_SANITIZE} -fno-omit-frame-pointer
                                             -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${COWSHED_SANITIZE})
  endif()
endfunction()

function(cowshed_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;HEADERS" ${ARGN})
  add_library(cowshed_${name} STATIC ${ARG_SOURCES})
  add_library(cowshed::${name} ALIAS cowshed_${name})
  set_target_properties(cowshed_${name} PROPERTIES EXPORT_NAME ${name})
  target_compile_features(cowshed_${name} PUBLIC cxx_std_20)
  target_include_directories(
    cowshed_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> # its "cowshed" is a link to the sources
                           $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  cowshed_compile(cowshed_${name})
  install(TARGETS cowshed_${name} EXPORT CowshedTargets
          ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  cmake_path(RELATIVE_PATH CMAKE_CURRENT_SOURCE_DIR BASE_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE top)
  foreach(header IN LISTS ARG_HEADERS)
    cmake_path(GET header PARENT_PATH room)
    install(FILES ${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/cowshed/${top}/${room})
  endforeach()
endfunction()
