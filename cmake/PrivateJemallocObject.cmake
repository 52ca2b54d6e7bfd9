# Run by cowshed_private_jemalloc() at build time: ARCHIVE to OBJECT with AR, LD, NM and OBJCOPY.

set(prefix cowshed_je_)
set(kept malloc calloc realloc free memalign aligned_alloc posix_memalign
    malloc_usable_size mallocx dallocx sdallocx mallctl malloc_conf
    malloc_conf_2_conf_harder malloc_message
    je_arena_emap_global je_rtree_ctx_data_init je_rtree_leaf_elm_lookup_hard
    je_opt_cache_oblivious)

function(run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${work} RESULT_VARIABLE status
                  OUTPUT_VARIABLE output ERROR_VARIABLE error)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${ARGN}: ${error}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

set(work ${OBJECT}.dir)
file(REMOVE_RECURSE ${work})
file(MAKE_DIRECTORY ${work})
run(${AR} x ${ARCHIVE})
file(GLOB objects ${work}/*.o)
list(FILTER objects EXCLUDE REGEX jemalloc_cpp)
# The map from addresses to records gets memory of ours, which can be taken away: see
# jemalloc::forget_addresses().
run(${OBJCOPY} --redefine-sym je_base_alloc=${prefix}address_map_memory rtree.pic.o)
# An option that it does not read from its configuration: private_jemalloc.cc says.
run(${OBJCOPY} --weaken-symbol=je_opt_cache_oblivious jemalloc.pic.o)
run(${LD} -r -o all.o ${objects})

run(${NM} --defined-only --extern-only --format=posix all.o)
string(REGEX MATCHALL "[^\n]+" lines "${output}")
# Called by jemalloc, answered by private_jemalloc.cc and private_mutex.cc.
set(renames "secure_getenv ${prefix}no_environment\nreadlink ${prefix}no_link\n")
foreach(operation init lock trylock unlock)
  string(APPEND renames "pthread_mutex_${operation} ${prefix}mutex_${operation}\n")
endforeach()
foreach(line IN LISTS lines)
  string(REGEX REPLACE " .*" "" symbol "${line}")
  string(APPEND renames "${symbol} ${prefix}${symbol}\n")
endforeach()
file(WRITE ${work}/renames "${renames}")
list(TRANSFORM kept PREPEND ${prefix})
list(JOIN kept "\n" kept)
file(WRITE ${work}/kept "${kept}\n")
run(${OBJCOPY} --redefine-syms=renames all.o renamed.o)
run(${OBJCOPY} --keep-global-symbols=kept renamed.o ${OBJECT})
file(REMOVE_RECURSE ${work})
